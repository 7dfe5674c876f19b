# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a build runs: a line that moves on a terminal, finished stages in a log."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path

import pytest

from nvrc_build.ground.progress import Terminal, watched


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def build(stream: io.StringIO) -> str:
    terminal = Terminal(stream)
    terminal("fetch", 0, 0)
    terminal("libc6", 1, 2)
    terminal("modules", 0, 0)
    terminal.close()
    return re.sub(r"\d+\.\d s", "0.0 s", stream.getvalue())


def test_a_terminal_shows_at_once_what_is_being_done() -> None:
    assert build(Screen()).replace("\x1b[K", "").split("\r") == [
        "", "fetch      ...", "fetch      [##########          ] libc6", "fetch         0.0 s\n", "modules    ...",
        "modules       0.0 s\n"]


def test_a_log_gets_finished_stages_and_no_control_characters() -> None:
    assert build(io.StringIO()) == "fetch         0.0 s\nmodules       0.0 s\n"


class Log(io.StringIO):
    """Tells when it has got so many lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.is_full, self._left = threading.Event(), lines

    def flush(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.is_full.set()


def test_a_log_gets_a_line_now_and_then_of_a_stage_that_takes_long() -> None:
    log = Log(2)
    terminal = Terminal(log, every_s=0.01)
    terminal("compile", 0, 0)
    terminal("nv.c", 3, 40)
    assert log.is_full.wait(10)
    terminal.close()
    assert re.match(r"compile +\d+\.\d s so far: nv\.c \(3 of 40\)\n", log.getvalue().splitlines(keepends=True)[1])


@pytest.mark.long
def test_a_long_compilation_tells_how_far_it_is(tmp_path: Path) -> None:
    for name in ("a.c", "b.c", "a.o", "b.o", "module.o"):
        (tmp_path / name).touch()
    heard: list[tuple[str, int, int]] = []
    with watched([tmp_path], lambda what, done, total: heard.append((what, done, total))):
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            time.sleep(0.02)
    assert set(heard) == {("compile 2 of 2 sources", 2, 2)}


def test_without_sources_nothing_is_told_and_a_failure_goes_through(tmp_path: Path) -> None:
    heard: list[str] = []
    try:
        with watched([tmp_path / "none"], lambda what, _done, _total: heard.append(what)):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        heard.append("through")
    assert heard == ["through"]
