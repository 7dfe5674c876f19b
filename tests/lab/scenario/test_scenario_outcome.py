# SPDX-License-Identifier: Apache-2.0
"""From console lines to facts, and from facts to the differences with an expectation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.trouble import fatal_line
from nvrc.report.report import Outcome, Report, StepRecord, Verdict, to_json
from nvrc.vocabulary.console import end_line, report_lines, step_line, verdict_ready, warning_line
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.trouble import Trouble
from nvrc_lab.scenario.values import Container, Expectation, Scenario, Seen
from nvrc_lab.scenario.values import Verdict as Wanted
from nvrc_lab.watch.console import Story, hear_bytes, hear_line
from nvrc_lab.watch.expect import compare, compare_foreign, depend_on, look_up, verdict_of
from nvrc_lab.watch.outcome import Told, gather
from nvrc_lab.watch.watch import Ending, Run

REPORT = Report(
    program="1.0", verdict=Verdict.READY, started_s=2.0,
    steps=(StepRecord(name="journal", outcome=Outcome.OK, start_s=1.0, end_s=2.0), StepRecord(name="agent")),
    gpus=(GpuRecord(bdf="0000:40:00.0", state=GpuState.ATTACHED),))
FAILED = replace(REPORT, verdict=Verdict.FAILED, failure=Trouble(code="E_MOUNT", step="filesystems", what="w", hint="h"),
                 steps=(StepRecord(name="filesystems", outcome=Outcome.FAIL, start_s=1.0, end_s=1.1), StepRecord(name="journal")))
READY_LINES = (step_line("journal", "ok", 0.1), warning_line("a word"), verdict_ready(1.5, "gpu", 1, 2, 87))
END = end_line("OK", "the agent powered off")
CONTAINER = (
    "engine: gpu 0000:40:00.0 minor=0 uuid=x cc=0 users=1 initialised=1 opens=2 attaches=1 failures=0 first=nvidia-persiste",
    "engine: injected 1 ms=900", "container: cuda 42", "container: node nvidia0 195:0 mode=666 open=ok",
    "container: node nvidiactl 195:255 mode=666 open=ok", "container: library libcuda.so.1 -> libcuda.so.550",
    "container: made all", "container: cached libcuda.so.1 yes", "container: env NVIDIA_VISIBLE_DEVICES=void", "engine: ended status=0 ms=800")


def told(lines: Sequence[str], *, report: Report | None = REPORT, ending: Ending = Ending.GUEST, seconds: float = 5.0,
         verdict_s: float = 4.0) -> Told:
    pieces = list(report_lines(to_json(report))) if report is not None else []
    story = Story()
    for line in [*pieces, *lines]:
        story = hear_line(hear_bytes(story, line.encode()), line, 1.0)
    run = Run(story=story, ending=ending, status=0, complaint="", seconds=seconds, console=Path("/c"),
              power_off_s=seconds - verdict_s)
    return gather(run, [*pieces, *lines])


def scenario(verdict: Wanted = Wanted.READY, **more: object) -> Scenario:
    expect = Expectation(verdict=verdict)
    return Scenario(summary="s", expect=replace(expect, **more))  # type: ignore[arg-type]


def test_what_a_run_told() -> None:
    one = told([*READY_LINES, *CONTAINER, END])
    assert one.report == REPORT
    assert one.container is not None
    assert (one.container.ran, one.container.status, one.container.cached) == (True, 0, True)
    assert one.container.nodes["nvidia0"].major == 195
    assert one.container.libraries == ("libcuda.so.1",)
    assert one.container.env == {"NVIDIA_VISIBLE_DEVICES": "void"}
    assert len(one.attaches) == 1


@pytest.mark.parametrize(("lines", "verdict"), [
    ((*READY_LINES, END), "ready"),
    (READY_LINES, "lost"),
    ((*READY_LINES, end_line("E_AGENT_EXIT", "it ended")), "lost"),
    ((fatal_line("E_MOUNT", "filesystems", "w", "h"),), "failed"),
    (("Kernel panic - not syncing: dm-verity device corrupted",), "panic"),
    ((), "none"),
])
def test_verdicts(lines: Sequence[str], verdict: str) -> None:
    assert verdict_of(told(lines)) == verdict


def test_the_last_of_two_reports_counts() -> None:
    later = replace(REPORT, mode="gpu")
    one = told([*report_lines(to_json(later)), *READY_LINES, END])
    assert one.report == later


def test_a_run_as_it_should_be() -> None:
    seen = Seen(gpus=(0,), nodes=("nvidiactl",), libraries=("libcuda.so.1",), env={"NVIDIA_VISIBLE_DEVICES": "void"})
    wanted = scenario(mode="gpu", gpus=1, cdi=2, warnings=("word",), container=seen, absent=("Oops",),
                      report={"gpus/0000:40:00.0/state": "attached", "steps/journal/outcome": "ok", "verdict": "*"})
    wanted = replace(wanted, container=Container(devices=("nvidia.com/gpu=0",)))
    assert compare(wanted, told([*READY_LINES, *CONTAINER, END])) == ()


@pytest.mark.parametrize(("wanted", "lines", "problem"), [
    pytest.param(scenario(Wanted.FAILED, code="E_MOUNT"), (*READY_LINES, END), "verdict: expected failed, found ready", id="verdict"),
    pytest.param(scenario(mode="cpu"), (*READY_LINES, END), "mode: expected cpu, found gpu", id="mode"),
    pytest.param(scenario(gpus=2), (*READY_LINES, END), "gpus: expected 2, found 1", id="gpus"),
    pytest.param(scenario(warnings=("other",)), (*READY_LINES, END), "warnings: none has 'other'", id="warning"),
    pytest.param(scenario(report={"steps/cdi/outcome": "ok"}), (*READY_LINES, END), "report steps/cdi/outcome: expected ok, found nothing there", id="report"),
    pytest.param(scenario(agent=("zombies=0",)), (*READY_LINES, END), "agent: no line has 'zombies=0'", id="agent"),
    pytest.param(scenario(console=("NVRM",)), (*READY_LINES, END), "console: no line has 'NVRM'", id="console"),
    pytest.param(scenario(absent=("word",)), (*READY_LINES, END), "'word' must be in no line", id="absent"),
    pytest.param(scenario(), (*READY_LINES, verdict_ready(1, "gpu", 1, 1, 1), verdict_ready(1, "gpu", 1, 1, 1), END), "4 verdict lines", id="repeated"),
    pytest.param(scenario(), (*READY_LINES, END, END), "3 verdict lines", id="an end of somebody else's"),
    pytest.param(scenario(container=Seen(gpus=(0,))), (*READY_LINES, END), "the engine never spoke", id="no-container"),
    pytest.param(scenario(container=Seen(gpus=(1,))), (*READY_LINES, *CONTAINER, END), "GPU minors expected [1], found [0]", id="minors"),
    pytest.param(scenario(container=Seen(gpus=(0,), instances=("0/1/0",))), (*READY_LINES, *CONTAINER, END),
                 "capability nodes expected ['nvidia-caps/nvidia-cap12', 'nvidia-caps/nvidia-cap13'], found []", id="mig"),
    pytest.param(scenario(container=Seen(gpus=(0,))), (*READY_LINES, "container: node nvidia-caps/nvidia-cap12 511:12 mode=444 open=ok",
                 *CONTAINER, END), "expected [], found ['nvidia-caps/nvidia-cap12']", id="foreign-mig"),
    pytest.param(scenario(container=Seen(gpus=(0,))), (*READY_LINES, *CONTAINER, "container: made nvidia3 open=ok", END),
                 "the device cgroup let it through: made nvidia3 open=ok", id="own-node"),
    pytest.param(replace(scenario(container=Seen(gpus=(0,))), container=Container(devices=())), (*READY_LINES, *CONTAINER, END),
                 "it asked for nothing and has nvidiactl", id="plain"),
    pytest.param(scenario(container=Seen(gpus=(0,), nodes=("nvidia-uvm",))), (*READY_LINES, *CONTAINER, END), "no node nvidia-uvm", id="node"),
    pytest.param(scenario(container=Seen(gpus=(0,), libraries=("libx.so",))), (*READY_LINES, *CONTAINER, END), "no library libx.so", id="library"),
    pytest.param(scenario(container=Seen(gpus=(0,), env={"A": "b"})), (*READY_LINES, *CONTAINER, END), "A: expected 'b', found None", id="env"),
    pytest.param(scenario(container=Seen(refused="gpu=7")), (*READY_LINES, *CONTAINER, END), "it started, although it must be refused", id="not-refused"),
    pytest.param(scenario(), (*READY_LINES, CONTAINER[0].replace("nvidia-persiste", "nvidia-smi"), END), "must have been the first", id="first-client"),
    pytest.param(scenario(), (*READY_LINES, CONTAINER[0].replace("attaches=1", "attaches=2"), END), "must have been the first", id="attached-twice"),
])
def test_every_difference_is_named(wanted: Scenario, lines: Sequence[str], problem: str) -> None:
    assert any(problem in one for one in compare(wanted, told(lines))), compare(wanted, told(lines))


FATAL = fatal_line("E_MOUNT", "filesystems", "/sys: busy", "h")


@pytest.mark.parametrize(("wanted", "report", "lines", "problem"), [
    pytest.param({"code": "E_MOUNT", "step": "filesystems", "what": ("busy",)}, FAILED, (FATAL,), None, id="good"),
    pytest.param({"code": "E_JOURNAL"}, FAILED, (FATAL,), "code: expected E_JOURNAL, found E_MOUNT", id="code"),
    pytest.param({"code": "E_MOUNT", "step": "journal"}, FAILED, (FATAL,), "step: expected journal, found filesystems", id="step"),
    pytest.param({"code": "E_MOUNT", "what": ("idle",)}, FAILED, (FATAL,), "what: 'idle' is not in '/sys: busy'", id="what"),
    pytest.param({"code": "E_MOUNT"}, None, (FATAL,), "no report on the console", id="no-report"),
    pytest.param({"code": "E_MOUNT"}, REPORT, (FATAL,), "the report's failure is none", id="report-disagrees"),
    pytest.param({"code": "E_MOUNT"}, FAILED, (FATAL, "agent: acts report"), "the agent ran although the boot failed", id="agent-ran"),
    pytest.param({"code": "E_MOUNT"}, replace(FAILED, steps=(StepRecord(name="journal", outcome=Outcome.OK, start_s=1.0),)), (FATAL,), "there ran journal", id="later-step"),
])
def test_a_failure_ends_everything_behind_it(wanted: dict[str, object], report: Report | None, lines: Sequence[str], problem: str | None) -> None:
    found = compare(scenario(Wanted.FAILED, **wanted), told(lines, report=report))
    assert (problem is None and found == ()) or any(str(problem) in one for one in found), found


TOLD = "runtime: refused status=9 guest init: E_MOUNT in step filesystems: /sys: busy (hint: h)"


@pytest.mark.parametrize(("refused", "problem"), [
    pytest.param(TOLD, None, id="good"),
    pytest.param(TOLD.replace("E_MOUNT", "E_JOURNAL"), "does not begin with", id="code"),
    pytest.param(TOLD.replace("filesystems", "journal"), "does not begin with", id="step"),
    pytest.param(TOLD.replace("status=9", "status=13"), "does not begin with", id="status"),
    pytest.param("runtime: refused status=0 an agent serves", "does not begin with", id="an agent serves"),
    pytest.param(TOLD.replace("busy", "idle"), "which lacks '/sys: busy'", id="cause"),
    pytest.param(TOLD + "x" * 1024, "one line of printable ASCII below 1 KiB", id="length"),
    pytest.param(TOLD + "\u2603", "one line of printable ASCII", id="characters"),
])
def test_a_runtime_is_told_what_the_console_says(refused: str, problem: str | None) -> None:
    found = compare(scenario(Wanted.FAILED, code="E_MOUNT"), told((FATAL, refused), report=FAILED))
    assert (problem is None and found == ()) or any(str(problem) in one for one in found), found


def test_a_runtime_is_not_refused_by_a_machine_that_is_well() -> None:
    assert any("knows of no failure" in one for one in compare(scenario(), told((*READY_LINES, TOLD, END))))


def test_lines_that_the_kernel_dropped_are_told() -> None:
    lost = ("[    3.000000] ** 12 printk messages dropped **", "[    4.000000] ** 30 printk messages dropped **")
    assert "the kernel dropped 42 lines of its log" in compare(scenario(), told([*READY_LINES, *lost, END]))[0]


def test_a_machine_must_end_by_itself_and_soon() -> None:
    late = told((FATAL,), report=FAILED, seconds=40)
    assert "power-off took 36.0 s" in compare(scenario(Wanted.FAILED, code="E_MOUNT"), late)[0]
    stuck = told((*READY_LINES, END), ending=Ending.DEADLINE)
    assert "did not power itself off" in compare(scenario(), stuck)[0]


def test_a_foreign_init_did_its_work_when_the_agent_ran() -> None:
    assert compare_foreign(told(("agent: acts poweroff",), report=None)) == ()
    assert compare_foreign(told((), report=None)) == ("the agent never ran",)
    assert "did not end" in compare_foreign(told(("agent: acts x",), report=None, ending=Ending.DEADLINE))[0]


def test_paths_of_a_report() -> None:
    document = {"a": [{"name": "x", "b": None}, {"bdf": "0000:40:00.0", "b": True}], "c": {"d": 1.5}}
    assert look_up(document, ["a", "x", "b"]) == "none"  # type: ignore[arg-type]
    assert look_up(document, ["a", "0000:40:00.0", "b"]) == "true"  # type: ignore[arg-type]
    assert look_up(document, ["a", "1", "b"]) == "true"  # type: ignore[arg-type]
    assert look_up(document, ["a"]) == "2 items"  # type: ignore[arg-type]
    assert look_up(document, ["c", "d"]) == "1.5"  # type: ignore[arg-type]
    assert look_up(document, ["a", "7"]) is None  # type: ignore[arg-type]
    assert look_up(document, ["c", "d", "e"]) is None  # type: ignore[arg-type]


def test_what_depends_on_a_step() -> None:
    needs = {"a": (), "b": ("a",), "c": ("b",), "d": ()}
    assert depend_on("a", needs) == {"b", "c"}
    assert depend_on("d", needs) == set()
