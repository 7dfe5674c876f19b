# SPDX-License-Identifier: Apache-2.0
"""The machine's end when the kernel refuses it, and errors that nobody caught."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from nvrc.engine.executor import DeadlineError
from nvrc.pid1.alarm import expire, set_alarm
from nvrc.pid1.crash import tell
from nvrc.pid1.ending import Stage, end
from nvrc.vocabulary import paths
from nvrc.vocabulary.ending import Orderly

ROOT = Path(__file__).parents[3]
REFUSED = OSError(1, "Operation not permitted")


class SleptError(Exception):
    """In place of the sleep that never ends."""


def asleep(_seconds: float) -> None:
    raise SleptError


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    system = FakeSystem(str(tmp_path))
    system.put(paths.SYSRQ)
    return system


@pytest.mark.parametrize(("refused", "effects", "said"), [
    pytest.param((), ["power off", "restart", f"write {paths.SYSRQ} c"], 0, id="none: the first never returns in truth"),
    pytest.param(("power off",), ["restart", f"write {paths.SYSRQ} c"], 1, id="power off"),
    pytest.param(("power off", "restart"), [f"write {paths.SYSRQ} c"], 2, id="restart as well"),
    pytest.param(("power off", "restart", f"write {paths.SYSRQ}"), [f"write {paths.SYSRQ} c"], 3, id="all"),
])
def test_every_way_to_end_is_tried_in_turn(system: FakeSystem, refused: tuple[str, ...], effects: list[str], said: int) -> None:
    system.fail = dict.fromkeys(refused, REFUSED)
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=Orderly("asked for"), sync=lambda: None), asleep)
    assert system.effects == effects
    assert system.said[0] == 'nvrc: END code=OK what="asked for"'
    assert len(system.said[1:]) == said
    assert all("Operation not permitted" in line for line in system.said[1:])


class StuckSystem(FakeSystem):
    """Its kernel waits, while it switches off, for a device that never answers."""

    is_reset = threading.Event()

    def power_off(self) -> None:
        assert self.is_reset.wait(60)
        raise SleptError

    def write(self, path: str, data: bytes) -> None:
        super().write(path, data)
        self.is_reset.set()


def test_a_kernel_that_never_gets_to_the_switch_is_reset(tmp_path: Path) -> None:
    system = StuckSystem(str(tmp_path))
    system.put(paths.SYSRQ)
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=Orderly("asked for"), sync=lambda: None, switch_off_s=0.01), asleep)
    assert system.effects[0] == f"write {paths.SYSRQ} b"


def test_the_thread_that_ends_the_machine_waits_for_no_disk_itself(system: FakeSystem) -> None:
    """sync(2) waits for one that does not answer where no alarm reaches it."""
    synced_by: list[int] = []
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=Orderly("asked for"), sync=lambda: synced_by.append(threading.get_ident())), asleep)
    assert len(synced_by) == 1
    assert synced_by[0] != threading.get_ident()


def test_the_alarm_breaks_into_what_overruns() -> None:
    before = signal.signal(signal.SIGALRM, expire)
    try:
        set_alarm(0.01)
        with pytest.raises(DeadlineError):
            signal.pause()
    finally:
        set_alarm(0)
        signal.signal(signal.SIGALRM, before)


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot say")


@pytest.mark.parametrize(("error", "words"), [
    pytest.param(ValueError("x"), "ValueError: x at ", id="an error"), pytest.param(MuteError(), "MuteError", id="that cannot print itself"),
    pytest.param(ValueError, "ValueError", id="a class without a value")])
def test_any_error_has_words(error: BaseException | type[BaseException], words: str) -> None:
    assert tell(error) == words


def run_program(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
                          capture_output=True, text=True, check=False, timeout=60)


PRELUDE = """
import sys, _thread, time
from nvrc.pid1.crash import tell_uncaught
from nvrc.machine.linux_system import LinuxSystem
tell_uncaught(LinuxSystem("/nonexistent"))
"""
UNCAUGHT = {
    "in a thread": ("_thread.start_new_thread(lambda: 1 / 0, ())\ntime.sleep(0.2)", r"nvrc: warn uncaught in (thread started by )?<function <lambda>"),
    "in a destructor": ("class A:\n    def __del__(self): 1 / 0\nA()", r"nvrc: warn uncaught in <function A\.__del__"),
    "at the top": ("1 / 0", r"nvrc: warn uncaught: ZeroDivisionError: division by zero at <string>:"),
}


@pytest.mark.long
@pytest.mark.parametrize(("code", "line"), UNCAUGHT.values(), ids=UNCAUGHT)
def test_what_nobody_caught_is_a_line_of_the_console(code: str, line: str) -> None:
    done = run_program(PRELUDE + code)
    (said,) = done.stderr.splitlines()
    assert re.match(line, said)
    assert "ZeroDivisionError" in said


def test_a_fault_names_the_code_that_ran() -> None:
    done = run_program(PRELUDE + "import ctypes\nctypes.string_at(8)")
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr
    assert 'File "<string>", line' in done.stderr


def test_standard_descriptors_are_held_when_there_is_no_console() -> None:
    code = """
import os
keep = os.dup(1)
for number in (0, 1, 2):
    os.close(number)
from nvrc.pid1.crash import hold_standard_descriptors
hold_standard_descriptors()
opened = os.open("/dev/null", os.O_RDONLY)
os.write(keep, b"%d %d %d" % (opened > 2, os.get_inheritable(1), os.fstat(2).st_ino == os.stat("/").st_ino))
os._exit(0)
"""
    assert run_program(code).stdout == "1 1 1"
