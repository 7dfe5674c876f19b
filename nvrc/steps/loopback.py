# SPDX-License-Identifier: Apache-2.0
"""Brings `lo` up: the fabric manager binds 127.0.0.1, and the agent expects it. The kernel adds the address."""

from __future__ import annotations

from nvrc.engine.facts import Facts
from nvrc.engine.table import SHORT, nothing
from nvrc.machine.system import Kernel
from nvrc.vocabulary.errors import NvrcError

deadline_s, tell = SHORT, nothing


def run(system: Kernel, facts: Facts) -> Facts:
    try:
        system.raise_loopback()
    except OSError as err:
        raise NvrcError("E_LOOPBACK", f"cannot bring lo up: {err.strerror}") from err
    return facts
