# SPDX-License-Identifier: Apache-2.0
"""What giving back leaves of the boot's ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nvrc_build

ENTRY = Path(nvrc_build.__file__).parent / "products" / "frozen" / "entry.py"
RUN = "import gc; gc.set_threshold({seldom}); from nvrc.machine import memory; memory.give_back(); print(gc.get_threshold()[0])"


def test_the_collector_looks_as_often_as_usual_once_the_boot_is_over() -> None:
    (line,) = [line.strip() for line in ENTRY.read_text(encoding="utf-8").splitlines() if "gc.set_threshold(" in line]
    seldom = int(line.removeprefix("gc.set_threshold(").removesuffix(")"))
    told = subprocess.run([sys.executable, "-c", RUN.format(seldom=seldom)], capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) * 10 < seldom
