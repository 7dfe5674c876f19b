# SPDX-License-Identifier: Apache-2.0
"""The program that holds a container back: when it ends, and that it needs nothing of the root it runs in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvrc_build.supply.compile import FREESTANDING
from nvrc_build.tree.elf import read_needs

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.namespace
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "gpus"
    found.mkdir()
    return found


@pytest.fixture
def program(folder: Path, tmp_path: Path) -> Path:
    """As the factory makes it, but with the compiler of this machine and another folder."""
    made = tmp_path / "await"
    subprocess.run(["gcc", *FREESTANDING, f'-DFOLDER="{folder}"', "-o", made, ROOT / "nvrc/await.c"], check=True)
    return made


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def run(*before: str) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen([*before, str(program)], stdin=subprocess.DEVNULL, env={}))
        return running[-1]

    yield run
    for one in running:
        one.kill()
        one.wait()


def say(folder: Path) -> None:
    """As PID 1 does: whole, by a rename."""
    (folder / ".ready").write_bytes(b"ready\n")
    (folder / ".ready").rename(folder / "ready")


def test_a_word_that_stands_there_is_enough(folder: Path, start: Start) -> None:
    say(folder)
    assert start().wait(10) == 0


def test_it_waits_for_the_word_and_for_no_other_file(folder: Path, start: Start) -> None:
    waiting = start()
    for name in ("other", "readyy"):
        (folder / name).touch()
    time.sleep(1.2)
    assert waiting.poll() is None
    say(folder)
    assert waiting.wait(10) == 0


def test_many_wait_at_once_and_cost_nothing(folder: Path, start: Start) -> None:
    waiting = [start() for _ in range(8)]
    time.sleep(0.5)
    spent = [sum(map(int, Path(f"/proc/{one.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]))
             for one in waiting]
    assert max(spent) <= 1, "hundredths of a second"
    say(folder)
    assert [one.wait(10) for one in waiting] == [0] * 8


def test_without_a_watch_it_looks_once_a_second(folder: Path, start: Start) -> None:
    """No descriptor is to be had, so inotify has none."""
    waiting = start("prlimit", "--nofile=0", "--")
    time.sleep(0.3)
    say(folder)
    assert waiting.wait(10) == 0


def test_it_is_its_source_and_nothing_else(program: Path) -> None:
    data = program.read_bytes()
    needs = read_needs(data, "/await")
    assert needs is not None
    assert (needs.libraries, needs.interpreter, needs.run_path) == ((), "", ())
    assert len(data) < 4096
    assert not any(trace in data for trace in (b"GCC", b"await.c", b"build-id", b"libc"))
