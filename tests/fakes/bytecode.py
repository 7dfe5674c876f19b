# SPDX-License-Identifier: Apache-2.0
"""What a program that a test starts is told of Python's own: where its bytecode is, and whether it is counted.

Its bytecode is where the tests have theirs (`./dev test`), else nowhere: to compile all that it imports takes up to half
of its time.
"""

from __future__ import annotations

import os

PREFIX = "PYTHONPYCACHEPREFIX"
BYTECODE = {PREFIX: os.environ[PREFIX]} if PREFIX in os.environ else {"PYTHONDONTWRITEBYTECODE": "1"}


def uncounted() -> dict[str, str]:
    """The environment of one that runs a copy of the checkout: coverage counts the checkout's files, and doubles what it takes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}
