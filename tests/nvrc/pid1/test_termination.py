# SPDX-License-Identifier: Apache-2.0
"""Termination messages: only empty files of the folder are written to, whatever a container has put there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from nvrc.machine.processes import LinuxProcesses
from nvrc.pid1.termination import FOLDER, MOST_FILES, fill_all, leave

TEXT = "guest init: E_SERVICE_LOST in step supervise: x"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "proc/77/root" / FOLDER
    path.mkdir(parents=True)
    return path


def fill(tmp_path: Path) -> int:
    root = os.open(tmp_path / "proc/77/root", os.O_PATH)
    try:
        return fill_all(root, TEXT.encode())
    finally:
        os.close(root)


def test_each_container_that_said_nothing_says_why(tmp_path: Path, folder: Path) -> None:
    for name in ("a-termination-log", "b-termination-log", "c-hosts"):
        (folder / name).touch()
    assert fill(tmp_path) == 2
    assert [(folder / f"{name}").read_text() for name in ("a-termination-log", "b-termination-log", "c-hosts")] == [TEXT, TEXT, ""]
    assert fill(tmp_path) == 0, "and it is said once"


def test_a_message_of_its_own_stays(tmp_path: Path, folder: Path) -> None:
    (folder / "a-termination-log").write_text("out of cheese")
    assert fill(tmp_path) == 0
    assert (folder / "a-termination-log").read_text() == "out of cheese"


def make_link(folder: Path, target: str) -> None:
    (folder / "x-termination-log").symlink_to(target)


@pytest.mark.parametrize("kind", ["link beside", "link out", "absolute link", "fifo", "folder", "gone"])
def test_what_is_no_file_is_left_alone(tmp_path: Path, folder: Path, kind: str) -> None:
    victim = tmp_path / "proc/77/victim"
    victim.touch()
    (folder / "victim").touch()
    match kind:
        case "link beside":
            make_link(folder, "victim")
        case "link out":
            make_link(folder, "../../../../../victim")
        case "absolute link":
            make_link(folder, str(victim))
        case "fifo":
            os.mkfifo(folder / "x-termination-log")
        case "folder":
            (folder / "x-termination-log").mkdir()
    assert fill(tmp_path) == 0
    assert victim.read_bytes() == (folder / "victim").read_bytes() == b""


def test_the_folder_itself_may_be_no_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a-termination-log").touch()
    above = tmp_path / "proc/77/root" / FOLDER
    above.parent.mkdir(parents=True)
    above.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        fill(tmp_path)
    assert (elsewhere / "a-termination-log").read_bytes() == b""


def test_a_folder_without_end_has_an_end(tmp_path: Path, folder: Path) -> None:
    for number in range(MOST_FILES + 10):
        (folder / f"{number}-termination-log").touch()
    assert fill(tmp_path) == MOST_FILES


def test_a_child_does_it(tmp_path: Path, folder: Path) -> None:
    (folder / "a-termination-log").touch()
    system = FakeSystem(str(tmp_path), workers=LinuxProcesses())
    assert leave(system, 77, TEXT) == 1
    assert (folder / "a-termination-log").read_text() == TEXT
    os.waitpid(-1, 0)


def test_without_an_agent_there_is_no_answer(tmp_path: Path) -> None:
    assert leave(FakeSystem(str(tmp_path), workers=LinuxProcesses()), 77, TEXT) is None
    os.waitpid(-1, 0)


class StuckSystem(FakeSystem):
    """A file system that never answers."""

    def open_root(self, pid: int) -> int:
        time.sleep(600)
        return super().open_root(pid)

    def signal(self, pid: int, number: int) -> None:
        super().signal(pid, number)
        os.kill(pid, number)


def test_a_file_system_that_never_answers_costs_its_time_and_no_more(tmp_path: Path) -> None:
    system = StuckSystem(str(tmp_path), workers=LinuxProcesses())
    began = time.monotonic()
    assert leave(system, 77, TEXT, limit_s=0.2) is None
    assert time.monotonic() - began < 60
    (killed,) = system.effects
    _pid, status = os.waitpid(int(killed.split()[1]), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
