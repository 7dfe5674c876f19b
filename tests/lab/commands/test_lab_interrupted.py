# SPDX-License-Identifier: Apache-2.0
"""Commands of the lab that are ended in the middle of a machine: whatever ends them, nothing stays.

In QEMU's place there is a program that says a word and stays, so that only the lab's own doing is seen, at any moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.lab_image import packed_image
from nvrc_lab.ground.scratch import PREFIX
from nvrc_lab.kit.image import BootFiles

pytestmark = pytest.mark.qemu
# `exec` keeps the pid.
QEMU = """#!/bin/sh
[ "$1" = --version ] && { echo "QEMU emulator version 10.1.0"; exit 0; }
echo "SeaBIOS"
echo $$ >> "$PIDS"
exec sleep 600
"""


@pytest.fixture(scope="module")
def image() -> BootFiles:
    return packed_image()


def commands(image: BootFiles) -> dict[str, list[str]]:
    files = [f"--kernel={image.kernel}", f"--initrd={image.initrd}", "--accel=tcg"]
    return {
        "boot": ["boot", *files],
        "scenario": ["boot", "cpu", *files],
        "matrix": ["matrix", "policy", "--accel=tcg", "--workers=2"],
        "matrix-of-one": ["matrix", "policy-pins", "--accel=tcg"],
        "bench": ["bench", "cpu", "--runs=1", f"--image={image.kernel.parent}", "--accel=tcg"],
    }


NAMES = ("boot", "scenario", "matrix", "bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A command of the lab with its machines up. `temporary`: where it puts what is to go."""

    lab: subprocess.Popen[str]
    machines: tuple[int, ...]
    temporary: Path

    @property
    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.temporary)) for path in self.temporary.rglob("*"))


@contextmanager
def started(words: Sequence[str], folder: Path, machines: int) -> Iterator[Running]:
    programs, temporary, pids = folder / "bin", folder / "tmp", folder / "pids"
    programs.mkdir()
    temporary.mkdir()
    (programs / "qemu-system-x86_64").write_text(QEMU)
    (programs / "qemu-system-x86_64").chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(temporary), "PIDS": str(pids)}
    with subprocess.Popen([sys.executable, "-m", "nvrc_lab", *words], env=env, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as lab:
        try:
            yield Running(lab=lab, machines=await_machines(lab, pids, machines), temporary=temporary)
        finally:
            lab.kill()


def await_machines(lab: subprocess.Popen[str], pids: Path, count: int) -> tuple[int, ...]:
    limit = time.monotonic() + 240
    while time.monotonic() < limit and lab.poll() is None:
        found = tuple(map(int, pids.read_text().split())) if pids.exists() else ()
        if len(found) == count:
            return found
        time.sleep(0.05)
    lab.kill()
    assert lab.stdout is not None
    raise AssertionError(f"no {count} machines: {lab.stdout.read()}")


def all_gone(pids: Sequence[int]) -> bool:
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_command_takes_everything_along(name: str, number: signal.Signals, image: BootFiles, tmp_path: Path) -> None:
    with started(commands(image)[name], tmp_path, 2 if name == "matrix" else 1) as running:
        running.lab.send_signal(number)
        said, _ = running.lab.communicate(timeout=60)
        assert running.lab.returncode == 130, said
        assert "nvrc-lab: interrupted; the machine was ended" in said
        assert all_gone(running.machines)
        assert running.left == []


@pytest.mark.parametrize("name", ["scenario", "matrix"])
def test_a_killed_command_takes_its_machines_along(name: str, image: BootFiles, tmp_path: Path) -> None:
    with started(commands(image)[name], tmp_path, 2 if name == "matrix" else 1) as running:
        running.lab.kill()
        running.lab.wait(20)
        assert all_gone(running.machines)
        # Nobody was there to remove the folder; the next lab does, when it is old enough (test_scratch.py).
        assert all(path.startswith(PREFIX) for path in running.left)


@pytest.mark.parametrize("name", ["boot", "scenario", "matrix-of-one", "bench"])
def test_a_killed_qemu_is_told_with_a_remedy(name: str, image: BootFiles, tmp_path: Path) -> None:
    with started(commands(image)[name], tmp_path, 1) as running:
        os.kill(running.machines[0], signal.SIGKILL)
        said, _ = running.lab.communicate(timeout=60)
        assert running.lab.returncode == 1, said
        assert [line for line in said.splitlines() if "QEMU was ended by SIGKILL after" in line and "not by the guest" in line]
        assert "run fewer machines at a time, --workers 1" in said
        assert all_gone(running.machines)
        assert running.left == []
