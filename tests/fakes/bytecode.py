# SPDX-License-Identifier: Apache-2.0
"""Where a program that a test starts keeps its bytecode: where the tests have theirs (`./dev test`), else nowhere.

Without, it compiles all that it imports each time, which takes up to half of its time.
"""

from __future__ import annotations

import os

PREFIX = "PYTHONPYCACHEPREFIX"
BYTECODE = {PREFIX: os.environ[PREFIX]} if PREFIX in os.environ else {"PYTHONDONTWRITEBYTECODE": "1"}
