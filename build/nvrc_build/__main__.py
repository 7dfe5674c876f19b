# SPDX-License-Identifier: Apache-2.0
"""nvrc-image: build, check, explain and compare guest images. Exit 0 done, 1 a finding or failure, 2 wrong usage."""

from __future__ import annotations

import sys

from nvrc_build.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
