# SPDX-License-Identifier: Apache-2.0
"""What a start loads, imports inside functions included: PID 1 up to its first mount, the worker at its first request.

What a start costs in instructions is code that is loaded, above all: a module more shows here at once, without a machine
that counts them.
"""

from __future__ import annotations

import marshal
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

import nvrc
from fakes.gpu_guest import MakeGuest
from fakes.system import bare_guest

ROOT = Path(nvrc.__file__).parents[1]
PACKAGES = str(Path(pynvml.__file__).parent)
# Bytes of code, as the frozen program carries it: 252 kB with Python 3.13.
CODE_BYTES = 280_000
PID_1 = """
import os, sys
sys.path.insert(0, sys.argv[1])
from nvrc.boot import BOOT
from nvrc.machine.linux_system import LinuxSystem
from nvrc.pid1.main import run

class Stopping(LinuxSystem):
    def mount(self, *_what):
        print(*sys.modules, flush=True)
        os._exit(0)

    def say(self, *line):
        print(*line, file=sys.stderr)

run(Stopping(sys.argv[2]), BOOT)
"""
WORKER = """
import sys
sys.path[:0] = sys.argv[1], sys.argv[3]
from nvrc.nvml.requests import make_requests
requests = make_requests("/", root=sys.argv[2])
before = set(sys.modules)
print(len(requests["gpus"]({})), *(set(sys.modules) - before))
"""


def output_of(code: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code, str(ROOT), str(folder), PACKAGES], capture_output=True, text=True,
                          check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def code_bytes(name: str) -> int:
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(marshal.dumps(compile(path.read_bytes(), name, "exec", dont_inherit=True, optimize=2)))


@pytest.mark.long
def test_pid_1_loads_little_before_its_first_mount(tmp_path: Path) -> None:
    bare_guest(str(tmp_path))
    loaded = [name for name in output_of(PID_1, tmp_path) if name.partition(".")[0] in ("nvrc", "guest_cdi")]
    loaded.remove("guest_cdi.lean.by_ctypes")  # the frozen program has a function of its own
    assert "nvrc.steps.filesystems" in loaded
    listed = set((ROOT / "tests/qemu/boot_imports.txt").read_text().split())
    assert set(loaded) <= listed, "of what a boot without GPUs loads, the first step needs a part"
    assert [name for name in loaded if name.startswith(("nvrc.steps.", "nvrc.nvml.", "nvrc.services."))] == ["nvrc.steps.filesystems"]
    sizes = {name: code_bytes(name) for name in loaded}
    assert sum(sizes.values()) < CODE_BYTES, sorted(sizes.items(), key=lambda row: -row[1])[:10]


@pytest.mark.long
def test_the_first_request_to_the_worker_loads_no_module(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    assert output_of(WORKER, guest.root) == ["2"]
