# SPDX-License-Identifier: Apache-2.0
"""What doctor makes of logs, reports and states: the right boot, the first verdict, nobody else's lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.cases import Case
from fakes.trouble import fatal_line
from nvrc.report.diagnosis import Diagnosis, State, diagnose_report, diagnose_status, diagnose_story
from nvrc.report.findings import ConfidentialRecord
from nvrc.report.report import Report, StepRecord
from nvrc.report.status import ServiceRecord, ServiceState, Status
from nvrc.report.story import ConsoleStory
from nvrc.vocabulary.console import end_line, step_line, verdict_ready, warning_line
from nvrc.vocabulary.errors import BY_CODE, CODES, make_trouble
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

BANNER = "[    0.000000] Linux version 6.12.0-cloud-amd64 (builder@host) #1 SMP"
STEP = step_line("filesystems", "ok", 0.1)
READY = verdict_ready(1.2, "gpu", 8, 9, 87)
END = end_line("OK", "the agent powered off")
FATAL = fatal_line("E_TOPOLOGY", "topology", "3 GPUs", "pass four")
CRASH = fatal_line("E_AGENT_EXIT", "supervise", "exit status 1", "read its lines")
LAST = fatal_line("E_INTERNAL", "pid1", "OSError", "report it")
PANIC = "[    2.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"


def diagnose_console(lines: Iterable[str]) -> Diagnosis:
    console = ConsoleStory()
    for text in lines:
        console.hear(text)
    return diagnose_story(console)


@pytest.mark.parametrize(("lines", "state", "summary"), [
    pytest.param([], State.UNFINISHED, "no line of this init: it never ran, or this is another log", id="empty"),
    pytest.param([BANNER, "[ 1.0] Run /init as init process"], State.UNFINISHED,
                 "no line of this init: it never ran, or this is another log", id="never-ran"),
    pytest.param([STEP, step_line("journal", "ok", 0.1)], State.UNFINISHED,
                 "no verdict; the last step that finished is journal. What comes after it in the table hangs, or the VM "
                 "was ended from outside", id="hangs"),
    pytest.param([STEP, READY], State.READY, "ready in 1.200 s, mode gpu, 8 GPUs, 9 CDI devices", id="ready"),
    pytest.param([STEP, READY, end_line("OK", "the agent powered off")], State.ENDED,
                 "the VM shut down cleanly: the agent powered off", id="ended"),
    pytest.param([STEP, FATAL], State.FAILED, "E_TOPOLOGY in step topology", id="fatal"),
    pytest.param([STEP, READY, CRASH], State.FAILED, "E_AGENT_EXIT after the boot", id="crash-after-ready"),
    pytest.param([STEP, READY, end_line("E_AGENT_EXIT", "signal 9")], State.FAILED, "E_AGENT_EXIT after the boot",
                 id="end-with-a-failure-code"),
    pytest.param([FATAL, LAST], State.FAILED, "E_TOPOLOGY in step topology", id="first-verdict-counts"),
    pytest.param([FATAL, PANIC], State.FAILED, "E_TOPOLOGY in step topology", id="verdict-before-panic"),
    pytest.param([STEP, PANIC], State.FAILED, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
                 id="panic"),
    pytest.param([PANIC, "Kernel panic - not syncing: again"], State.FAILED,
                 "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", id="first-panic"),
    pytest.param(["Fatal Python error: init_fs_encoding: no codec\r", PANIC + "\r"], State.FAILED,
                 "Fatal Python error: init_fs_encoding: no codec", id="interpreter"),
    pytest.param(["[    3.1] NVRC panic: nvidia-smi failed"], State.FAILED, "NVRC panic: nvidia-smi failed",
                 id="another-init"),
    pytest.param([BANNER, FATAL, BANNER, STEP, READY], State.READY,
                 "ready in 1.200 s, mode gpu, 8 GPUs, 9 CDI devices", id="last-boot-counts"),
    pytest.param([BANNER, READY, "[    0.000000][    T0] Linux version 6.1"], State.UNFINISHED,
                 "no line of this init: it never ran, or this is another log", id="next-boot-hangs"),
    pytest.param(["agent: " + FATAL, STEP, READY, "Linux version in a container's words", "> " + CRASH], State.READY,
                 "ready in 1.200 s, mode gpu, 8 GPUs, 9 CDI devices", id="somebody-elses-lines"),
])
def test_console(lines: list[str], state: State, summary: str) -> None:
    found = diagnose_console(lines)
    assert (found.state, found.summary) == (state, summary)


WAY_DOWN = fatal_line("E_AGENT_EXIT", "supervise", "exit status 1", "read its lines")


@pytest.mark.parametrize(("lines", "state", "first"), [
    pytest.param([READY, READY], State.DEGRADED, "ready in 1.200 s", id="ready twice"),
    pytest.param([READY, READY, END], State.DEGRADED, "the VM shut down cleanly", id="ready twice and an end"),
    pytest.param([FATAL, READY], State.FAILED, "E_TOPOLOGY", id="ready after fatal"),
    pytest.param([FATAL, FATAL], State.FAILED, "E_TOPOLOGY", id="fatal twice"),
    pytest.param([READY, FATAL], State.FAILED, "E_TOPOLOGY", id="a step fails after ready"),
    pytest.param([READY, WAY_DOWN, END], State.FAILED, "E_AGENT_EXIT", id="down twice"),
    pytest.param([READY, END, WAY_DOWN], State.DEGRADED, "the VM shut down cleanly", id="down twice, in order first"),
    pytest.param([READY, END, READY], State.DEGRADED, "the VM shut down cleanly", id="ready after the end"),
])
def test_a_second_verdict_is_forged(lines: list[str], state: State, first: str) -> None:
    found = diagnose_console([STEP, *lines])
    assert found.state is state
    assert found.summary.startswith(f"{len(lines)} verdicts where PID 1 gives one: one of them is forged")
    assert f"The first says: {first}" in found.summary


def test_nobody_makes_a_reader_forget_the_first_verdict_by_the_words_of_another_start() -> None:
    """Those of the kernel have its time where its other lines have it."""
    found = diagnose_console([BANNER, STEP, FATAL, "Linux version 6.12.0", STEP, READY])
    assert found.state is State.FAILED
    assert found.summary.startswith("2 verdicts where PID 1 gives one: one of them is forged")
    without_times = diagnose_console(["Linux version 6.12.0", FATAL, "Linux version 6.12.0", STEP, READY])
    assert without_times.state is State.READY


@pytest.mark.parametrize("lines", [[READY], [READY, END], [READY, WAY_DOWN], [READY, WAY_DOWN, LAST], [FATAL, LAST], [LAST], [END]])
def test_what_pid_1_says_of_one_life_is_not_forged(lines: list[str]) -> None:
    assert "forged" not in diagnose_console([STEP, *lines]).summary


def test_console_keeps_steps_and_warnings_in_order() -> None:
    found = diagnose_console([STEP, warning_line("first"), "[    1.0] " + step_line("agent", "skip", 0), warning_line("b")])
    assert found.finished_steps == ("filesystems ok", "agent skip")
    assert found.warnings == ("first", "b")


def test_every_code_is_explained() -> None:
    for row in CODES:
        with Case(row.code):
            found = diagnose_console([fatal_line(row.code, "s", "what", "hint")])
            assert found.failure == Trouble(code=row.code, step="s", what="what", hint="hint")
            assert (found.cause, found.remedy, found.who) == (row.meaning, row.remedy, row.who)


def test_unknown_code_says_so() -> None:
    found = diagnose_console([fatal_line("E_FROM_THE_FUTURE", "s", "what", "hint")])
    assert found.cause == "this program does not know the code; use the version that wrote the log"
    assert (found.state, found.remedy, found.who) == (State.FAILED, "", "")


def booted(**changes: object) -> Report:
    values: dict[str, object] = {"program": "nvrc 0.1.0", "started_s": 1.0, "verdict": Verdict.READY, "mode": "gpu"}
    return Report(**{**values, **changes})  # type: ignore[arg-type]  # names and values are those of each case


SERVICE_TROUBLE = make_trouble("E_SERVICE_LOST", "nv-fabricmanager exited with status 0", step="supervise")
GPU_TROUBLE = make_trouble("E_GPU_LOST", "GPU 0000:41:00.0: Xid 79", step="supervise", gpu="0000:41:00.0")
OK_STEP = StepRecord(name="filesystems", outcome=Outcome.OK, start_s=1.0, end_s=1.1)
WARN_STEP = StepRecord(name="dcgm", outcome=Outcome.WARN, start_s=1.1, end_s=1.2, code="E_STEP_DEADLINE", detail="slow")
RUNNING = StepRecord(name="agent", outcome=Outcome.RUNNING, start_s=1.2)
FAILURE = Trouble(code="E_TOPOLOGY", step="topology", what="3 GPUs", hint="pass four")


@pytest.mark.parametrize(("report", "expected"), [
    pytest.param(booted(), Diagnosis(state=State.READY, summary="ready, mode gpu"), id="ready"),
    pytest.param(booted(verdict=Verdict.NO_GPU, mode=""), Diagnosis(
        state=State.READY, summary="no-gpu, mode not decided"), id="no-gpu"),
    pytest.param(booted(verdict=Verdict.FAILED), Diagnosis(state=State.FAILED, summary="failed, mode gpu"),
                 id="failed-without-a-reason"),
    pytest.param(booted(verdict=Verdict.BOOTING, steps=(OK_STEP, RUNNING, StepRecord(name="later"))), Diagnosis(
        state=State.UNFINISHED, summary="no verdict yet; running: agent", finished_steps=("filesystems ok",)),
        id="booting"),
    pytest.param(booted(verdict=Verdict.BOOTING), Diagnosis(
        state=State.UNFINISHED, summary="no verdict yet; running: nothing"), id="booting-nothing"),
    pytest.param(booted(verdict=Verdict.FAILED, failure=FAILURE, notes=("w",), troubles=(FAILURE, GPU_TROUBLE), steps=(WARN_STEP,)), Diagnosis(
        state=State.FAILED, summary="E_TOPOLOGY in step topology", failure=FAILURE, finished_steps=("dcgm warn",),
        warnings=("E_GPU_LOST GPU 0000:41:00.0: Xid 79", "w"), cause=BY_CODE["E_TOPOLOGY"].meaning, remedy=BY_CODE["E_TOPOLOGY"].remedy,
        who=BY_CODE["E_TOPOLOGY"].who), id="failed"),
    pytest.param(booted(verdict=Verdict.DEGRADED, steps=(OK_STEP, WARN_STEP)), Diagnosis(
        state=State.DEGRADED, summary="mode gpu; degraded by E_STEP_DEADLINE",
        failure=Trouble(code="E_STEP_DEADLINE", step="dcgm", what="slow", hint=BY_CODE["E_STEP_DEADLINE"].remedy),
        finished_steps=("filesystems ok", "dcgm warn"), cause=BY_CODE["E_STEP_DEADLINE"].meaning,
        remedy=BY_CODE["E_STEP_DEADLINE"].remedy, who=BY_CODE["E_STEP_DEADLINE"].who), id="degraded"),
])
def test_report(report: Report, expected: Diagnosis) -> None:
    assert diagnose_report(report) == expected


@pytest.mark.parametrize(("mode", "cause"), [
    pytest.param("", "if the GPU is in confidential mode: a confidential GPU attaches once", id="not-known"),
    pytest.param("on", "a confidential GPU attaches once", id="confidential"),
    pytest.param("off", "the driver could not initialise the GPU", id="not-confidential"),
])
def test_a_cause_is_hedged_by_the_mode_that_the_report_has(mode: str, cause: str) -> None:
    found = diagnose_report(booted(
        verdict=Verdict.FAILED, log=("NVRM: RmInitAdapter failed! (0x22:0x56:897)",),
        failure=Trouble(code="E_GPU_ATTACH", step="persistenced", what="1 of 2", hint="reset"),
        confidential=ConfidentialRecord(mode=mode, why="NVML") if mode else None))
    assert found.cause.startswith(cause)


def test_status() -> None:
    live = Status(program="nvrc 0.1.0", verdict=Verdict.DEGRADED, mode="gpu", updated_s=9.0, notes=("w",), services=(
        ServiceRecord(name="agent", state=ServiceState.RUNNING, since_s=1.0),
        ServiceRecord(name="dcgm", state=ServiceState.FAILED, since_s=2.0)))
    assert diagnose_status(live) == Diagnosis(
        state=State.DEGRADED, summary="degraded, mode gpu", finished_steps=("agent running", "dcgm failed"),
        warnings=("w",))
    told = diagnose_status(replace(live, degraded_by=(SERVICE_TROUBLE, GPU_TROUBLE), troubles=(GPU_TROUBLE,)))
    assert told.warnings == ("w",), "what degrades is told as such, once"
    assert told.summary == "mode gpu; degraded by E_SERVICE_LOST, E_GPU_LOST"
    assert (told.state, told.failure, told.remedy, told.also) == (
        State.DEGRADED, SERVICE_TROUBLE, BY_CODE["E_SERVICE_LOST"].remedy, (GPU_TROUBLE,))
    lost = Status(program="nvrc 0.1.0", verdict=Verdict.FAILED, updated_s=9.0, failure=Trouble(
        code="E_AGENT_EXIT", step="supervise", what="signal 9", hint=""))
    assert diagnose_status(lost).summary == "E_AGENT_EXIT after the boot"


def test_a_console_that_was_degraded_says_by_what() -> None:
    lines = [STEP, step_line("dcgm", "warn", 0.1, "E_DCGM: no DCGM: /bin/nv-hostengine is not in the image"), READY]
    found = diagnose_console(lines)
    assert found.state is State.DEGRADED
    assert found.summary.endswith("degraded by E_DCGM")
    assert found.failure is not None and (found.failure.step, found.remedy) == ("dcgm", BY_CODE["E_DCGM"].remedy)
    later = diagnose_console([*lines, warning_line("E_GPU_LOST GPU 0000:41:00.0: Xid 79, fell off the bus"), END])
    assert later.summary == "the VM shut down cleanly: the agent powered off; degraded by E_DCGM, E_GPU_LOST"
    assert [(trouble.what, trouble.gpu) for trouble in later.also] == [
        ("GPU 0000:41:00.0: Xid 79, fell off the bus", "0000:41:00.0")]


def test_a_warning_is_a_trouble_only_with_a_code_of_ours() -> None:
    for text in ("E_FROM_THE_FUTURE gone", "no DCGM exporter", "E_", ""):
        assert diagnose_console([READY, warning_line(text)]).state is State.READY


def test_a_step_that_an_older_init_warned_of_without_a_code() -> None:
    found = diagnose_console([step_line("dcgm", "warn", 0.1, "no DCGM"), READY])
    assert (found.state, found.cause) == (State.DEGRADED, "")
    assert found.summary.endswith("degraded by step dcgm")


@given(st.lists(st.text() | st.sampled_from([BANNER, STEP, READY, FATAL, CRASH, PANIC]), max_size=8))
def test_any_log_gets_a_diagnosis(lines: list[str]) -> None:
    assert diagnose_console(lines).summary
