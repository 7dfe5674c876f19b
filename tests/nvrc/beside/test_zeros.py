# SPDX-License-Identifier: Apache-2.0
"""Zeros that NVIDIA's library wrote are given back, and it answers as before. With the stand-in, and with NVIDIA's own
library where NVRC_NVML_LIBRARY names one: it starts no further without a driver, but its table is cleared by then.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fakes.nvml import MockNvml
from nvrc.beside.zeros import size_in_memory, variables
from nvrc_lab.ground.places import checkout

OWN = os.environ.get("NVRC_NVML_LIBRARY", "")
TABLE_MIB = 14
MAPS = """\
00400000-00500000 rw-p 00000000 00:00 0
00500000-00501000 r-xp 00000000 fe:00 12 /lib/x y.so
00501000-00502000 rw-p 00001000 fe:00 12 /lib/x y.so
00502000-00602000 rw-p 00000000 00:00 0
00602000-00700000 rw-p 00000000 00:00 0
00800000-00801000 rw-p 00000000 fe:00 13 /lib/other.so
00801000-00901000 rw-p 00000000 00:00 0
00901000-00902000 rw-p 00000000 00:00 0 [heap]
""".splitlines(keepends=True)
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from guest_cdi.nvml import load
from nvrc.beside.gpus import read_machine
from nvrc.beside.zeros import give_back
def held():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))
nvml = load(sys.argv[2])
before = held()
try:
    nvml.nvmlInit()
except nvml.NVMLError:
    pass
after = held()
given = give_back(sys.argv[2])
kept = held()
try:
    answer = [read_machine(nvml) for _ in range(2)]
except nvml.NVMLError as err:
    answer = str(err)
print(json.dumps([after - before, kept - before, given, answer, held() - before]))
"""


def run(library: str) -> tuple[int, int, int, object, int]:
    """KiB that its start took and that stay; bytes given back; two answers, and KiB after them."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(checkout().root), library], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    taken, kept, given, answer, last = json.loads(done.stdout)
    return taken, kept, given, answer, last


def test_variables_are_what_lies_right_behind_the_file() -> None:
    assert list(variables(MAPS, "/lib/x y.so", 0x102000)) == [(0x502000, 0x602000)]
    assert list(variables(MAPS, "/lib/other.so", 0x101000)) == [(0x801000, 0x901000)]
    assert not list(variables(MAPS, "/lib/none.so", 0))


def test_what_others_have_right_behind_is_left_alone() -> None:
    """The kernel tells of neighbours as of one; the last page of the library's own is not taken where it ends within."""
    assert list(variables(MAPS, "/lib/x y.so", 0x42800)) == [(0x502000, 0x542000)]


def test_the_size_of_a_library_in_memory_is_what_it_takes_there(nvml_standin: Path, tmp_path: Path) -> None:
    path = MockNvml(nvml_standin, tmp_path / "one", "").library
    elf = ELFFile(io.BytesIO(Path(path).read_bytes()))
    ends = [one["p_vaddr"] + one["p_memsz"] for one in elf.iter_segments() if one["p_type"] == "PT_LOAD"]
    assert size_in_memory(path) == max(ends)
    assert max(ends) > Path(path).stat().st_size  # the table is not in the file


@pytest.mark.long
def test_the_stand_ins_table_is_given_back_and_it_answers_as_before(nvml_standin: Path, tmp_path: Path) -> None:
    text = "gpu 0 bus=0000:1a:00.0 serial=1650123\n"
    _taken, _kept, _given, plain, _last = run(MockNvml(nvml_standin, tmp_path / "plain", text).library)
    taken, kept, given, answer, last = run(MockNvml(nvml_standin, tmp_path / "table", f"table {TABLE_MIB}\n{text}").library)
    assert taken > TABLE_MIB << 10
    assert given >= TABLE_MIB << 20
    assert max(kept, last) < 4 << 10
    assert answer == plain


@pytest.mark.long
@pytest.mark.skipif(not OWN, reason="NVRC_NVML_LIBRARY names no libnvidia-ml.so.1")
def test_nvidias_own_library_keeps_little() -> None:
    taken, kept, given, answer, _last = run(OWN)
    assert taken - kept == pytest.approx(given >> 10, abs=256)
    assert kept < 4 << 10
    assert isinstance(answer, (str, list))
