# SPDX-License-Identifier: Apache-2.0
"""Bills of materials beside an image."""

from __future__ import annotations

from pathlib import Path

from nvrc_build.job import Job, Work


def write_sboms(_job: Job, _work: Work, _out: Path) -> None:
    """To come."""
