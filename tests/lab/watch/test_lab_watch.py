# SPDX-License-Identifier: Apache-2.0
"""One machine from start to end, with a small program in QEMU's place: how it can end, and that nothing survives."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nvrc_lab.ground.errors import LabError
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Ending, Limits, Run, record_of, watch

pytestmark = pytest.mark.long

READY = "nvrc: READY in 1.234s mode=cpu gpus=0 cdi=0 agent=87"
END = 'nvrc: END code=OK what="the agent powered off"'
STAY = "import sys, time; print({!r}, flush=True); time.sleep(600)"
PATIENT = Limits(total_s=60, silence_s=60)


def play(folder: Path, script: str, limits: Limits = PATIENT) -> Run:
    return watch((sys.executable, "-c", script), folder / "deep" / "console", limits, lambda *_: None)


def test_a_machine_that_ends_by_itself(tmp_path: Path) -> None:
    run = play(tmp_path, f"print({READY!r}); print({END!r}); import sys; print('careful', file=sys.stderr)")
    assert (run.ending, run.status, run.complaint) == (Ending.GUEST, 0, "careful")
    assert run.story.ready is not None
    assert run.story.end is not None
    assert run.console.read_bytes() == f"{READY}\n{END}\n".encode()


def test_a_line_without_an_end_is_heard(tmp_path: Path) -> None:
    assert play(tmp_path, f"print({READY!r}, end='')").story.ready is not None


def test_a_refusal_carries_the_complaint(tmp_path: Path) -> None:
    run = play(tmp_path, "import sys; sys.exit('no such device')")
    assert (run.ending, run.status, run.complaint, run.story) == (Ending.GUEST, 1, "no such device", Story())


def test_bytes_are_kept_as_they_came(tmp_path: Path) -> None:
    run = play(tmp_path, "import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert run.console.read_bytes() == bytes(range(256))
    assert run.story.is_garbage


ENDS = {
    "its time is up": (STAY.format("hello"), Limits(total_s=0.2, silence_s=60), Ending.DEADLINE),
    "it says nothing": (STAY.format(""), Limits(total_s=60, silence_s=0.2), Ending.SILENCE),
    "it stays after READY": (STAY.format(READY), Limits(total_s=60, silence_s=60, linger_s=0.0), Ending.STOPPED),
    "silence after READY is nobody's fault": (
        STAY.format(READY), Limits(total_s=0.6, silence_s=0.3), Ending.DEADLINE),
}


@pytest.mark.parametrize(("script", "limits", "ending"), ENDS.values(), ids=ENDS)
def test_a_machine_that_stays_is_ended(tmp_path: Path, script: str, limits: Limits, ending: Ending) -> None:
    run = play(tmp_path, script, limits)
    assert run.ending is ending
    assert run.status == -15


def test_one_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAY.format(READY)
    run = play(tmp_path, script, Limits(total_s=60, silence_s=60, linger_s=0.0, patience_s=0.1))
    assert (run.ending, run.status) == (Ending.STOPPED, -9)


# A machine of two ports: a record of the kernel's log is on both, broken into on the second; programs print there.
TWO_PORTS = f"""
import sys
with open(sys.argv[1], "ab", 0) as console:
    print("[    1.000000] {READY}", flush=True)
    console.write(b"half of [    1.000000] {READY}\\n a line\\n[    1.5] agent: x\\n{END[:20]}\\n")
    print("[    1.500000] agent: x")
    print('[    2.000000] {END}')
"""


def test_of_two_ports_each_line_is_heard_once_and_whole(tmp_path: Path) -> None:
    heard: list[str] = []
    console = tmp_path / "console"
    run = watch((sys.executable, "-c", TWO_PORTS, str(console)), console, PATIENT,
                lambda _story, lines, _now_s: heard.extend(lines), record=record_of(console))
    assert sorted(heard) == sorted([f"[    1.000000] {READY}", "[    1.500000] agent: x", f"[    2.000000] {END}",
                                    "half of ", " a line", "[    1.5] agent: x", END[:20]])
    assert (len(run.story.verdicts), run.story.end is not None, run.power_off_s is not None) == (1, True, True)
    assert b"half of" in console.read_bytes()
    assert record_of(console).read_text().splitlines()[0] == f"[    1.000000] {READY}"


@pytest.mark.parametrize(("console", "record"), [
    ("gpu-1.console", "gpu-1.log"), ("mine.log", "mine.log.log"), ("console", "console.log"), ("a.b", "a.b.log")])
def test_the_log_lies_beside_the_console_and_never_in_its_place(console: str, record: str) -> None:
    assert record_of(Path("/lab") / console) == Path("/lab") / record


def test_a_kernel_that_knows_of_one_port_leaves_a_console_all_the_same(tmp_path: Path) -> None:
    console = tmp_path / "console"
    run = watch((sys.executable, "-c", f"print({READY!r})"), console, PATIENT, lambda *_: None, record=record_of(console))
    assert run.story.ready is not None
    assert console.read_text() == f"{READY}\n"


def test_a_verdict_whose_machine_stays_has_its_time_counted(tmp_path: Path) -> None:
    script = f"import time; time.sleep(0.5); print({READY!r}, flush=True); time.sleep(0.5)"
    run = play(tmp_path, script)
    assert run.power_off_s is not None
    assert 0 < run.power_off_s < run.seconds


def test_an_interruption_ends_the_machine(tmp_path: Path) -> None:
    told: list[str] = []

    def interrupt(_story: Story, lines: tuple[str, ...], _now_s: float) -> None:
        told.extend(lines)
        if lines:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch((sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"),
              tmp_path / "console", PATIENT, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told[0]), 0)


def test_the_listener_hears_each_line_once_and_in_order(tmp_path: Path) -> None:
    told: list[str] = []
    watch((sys.executable, "-c", "print('\\n'.join(map(str, range(500))))"), tmp_path / "console", PATIENT,
          lambda _story, lines, _now_s: told.extend(lines))
    assert told == [str(number) for number in range(500)]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    try:
        run = watch(("/nonexistent/qemu",), tmp_path / "console", PATIENT, lambda *_: None)
    except LabError as err:
        assert "could not be started" in str(err)
    else:
        assert (run.status, "/nonexistent/qemu" in run.complaint) == (127, True)
