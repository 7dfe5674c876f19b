# SPDX-License-Identifier: Apache-2.0
"""The executor on tables of its own: order, merge, failure at every place, deadlines, work side by side."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.steps import Action, Doing
from fakes.system import FakeSystem
from fakes.trouble import trouble
from nvrc.boot import BOOT
from nvrc.engine.conditions import always, never
from nvrc.engine.executor import BootError, DeadlineError, Executor, Record
from nvrc.engine.facts import Facts, FailedWithFacts, merge, replace
from nvrc.engine.table import DEGRADE, Step, order, seconds
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.params.parse import parse
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.trouble import Trouble, remark


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(str(tmp_path))


@pytest.fixture
def loop(system: FakeSystem) -> Iterator[Loop]:
    loop = Loop(system.now)
    yield loop
    loop.close()


def executor(system: FakeSystem, loop: Loop, *table: Step,
             finished: Callable[[Record, Facts], None] = lambda _record, _facts: None) -> Executor:
    return Executor(system, loop, table, finished=finished, alarm=lambda limit_s: None)


def step(name: str, run: Action | None = None, **more: object) -> Step:
    def note(system: System, facts: Facts) -> Facts:
        system.say(name)
        return facts

    return Step(name, does=Doing(run or note), **more)  # type: ignore[arg-type]


def outcomes(records: tuple[Record, ...]) -> dict[str, str]:
    return {record.name: record.outcome for record in records}


def failing(error: Exception) -> Action:
    def run(_system: System, _facts: Facts) -> Facts:
        raise error

    return run


@pytest.mark.parametrize("blocks", [False, True], ids=["here", "beside"])
def test_a_record_says_how_long_the_step_waited_for_others(system: FakeSystem, loop: Loop, blocks: bool) -> None:
    def wait(given: System, facts: Facts) -> Facts:
        given.waits.add(1.5)
        given.waits.add(0.5)
        return facts

    system.waits.add(9.0)  # by this thread, before there was a step
    run = executor(system, loop, step("waits", wait, blocks=lambda _facts: blocks), step("quick", needs=("waits",)))
    run.run()
    assert [(record.name, record.waited_s) for record in run.records] == [("waits", 2.0), ("quick", 0.0)]


def test_a_record_says_when_the_step_ran_and_how_long(system: FakeSystem, loop: Loop) -> None:
    def work(given: System, facts: Facts) -> Facts:
        system.clock += 2.5
        return facts

    system.clock = 10.0
    run = executor(system, loop, step("a", work), step("b", needs=("a",)))
    run.run()
    assert [(record.start_s, record.end_s, record.seconds) for record in run.records] == [
        (10.0, 12.5, 2.5), (12.5, 12.5, 0.0)]


def test_a_step_that_does_not_apply_took_no_time(system: FakeSystem, loop: Loop) -> None:
    system.clock = 10.0
    run = executor(system, loop, step("a", when=lambda _facts: False))
    run.run()
    assert [(record.start_s, record.end_s) for record in run.records] == [(10.0, 10.0)]


def test_a_warning_of_no_step_stands_beside_those_of_steps(system: FakeSystem, loop: Loop) -> None:
    run = executor(system, loop, step("a"))
    run.warn("one")
    run.warn("two")
    assert [(one.step, one.what) for one in run.run().warnings] == [("", "one"), ("", "two")]


def test_nothing_of_a_blocking_step_stays_open(system: FakeSystem, loop: Loop) -> None:
    def pipes() -> set[str]:
        opened = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{name}")}
        return {name for name in opened if name.startswith("pipe:")}

    def is_closed() -> bool:
        loop.turn()
        return pipes() == before

    before = pipes()
    executor(system, loop, step("a", blocks=always), step("b", blocks=always)).run()
    wait_until(is_closed)  # a thread closes its end after its result counts


@pytest.mark.parametrize(("first", "later"), [
    pytest.param("filesystems", "journal", id="dev is mounted before the log is bound in it"),
    pytest.param("parameters", "topology", id="claims are read before the machine is compared with them"),
    pytest.param("hardening", "extensions", id="protections are set before a foreign disk is read"),
    pytest.param("extensions", "modules", id="the driver may come with an extension"),
    pytest.param("modules", "lock-modules", id="what is needed is loaded before loading is locked"),
    pytest.param("fabric", "persistenced", id="links are trained before a GPU attaches"),
    pytest.param("persistenced", "gpu-settings", id="nvidia-persistenced is the first client of the GPUs"),
    pytest.param("cc-check", "cdi", id="containers get no GPU whose mode was not checked"),
    pytest.param("cdi", "ready-state", id="the ready state covers what the document describes"),
    *(pytest.param(row.name, "agent", id=f"{row.name} is over when the agent starts") for row in BOOT if row.name not in ("agent", "attest")),
    pytest.param("agent", "attest", id="the agent starts what attests"),
])
def test_the_order_of_the_boot(first: str, later: str) -> None:
    names = order(BOOT)
    assert names.index(first) < names.index(later)
    assert first in all_needs(later)


@pytest.mark.parametrize(("first", "later"), [
    *(pytest.param(name, "agent", id=f"{name} precedes the agent") for name in (
        "filesystems", "journal", "hardening", "parameters", "extensions", "identity", "loopback", "topology", "modules", "device-nodes",
        "lock-modules", "nics", "promise")),
    *(pytest.param("agent", name, id=f"the agent precedes {name}") for name in (
        "fabric", "persistenced", "places", "gpu-settings", "cc-check", "fabric-check", "links", "cdi", "dcgm",
        "ready-state")),
    pytest.param("fabric", "persistenced", id="links are trained before a GPU attaches"),
])
def test_the_order_of_a_boot_whose_agent_does_not_wait_for_gpus(first: str, later: str) -> None:
    """Nothing that touches a GPU begins before the agent runs: no thread but the main one is left when it is cloned."""
    early = tuple(replace(row, needs=row.needs_of(EARLY)) for row in BOOT)
    assert order(early).index(first) < order(early).index(later)
    assert first in all_needs(later, early)


EARLY = Facts(early=True, mode=Mode.GPU)


@pytest.mark.parametrize("facts", [Facts(), Facts(early=False, mode=Mode.GPU), Facts(early=True, mode=Mode.CPU), Facts(early=True)])
def test_without_a_gpu_or_the_parameter_the_agent_is_last(facts: Facts) -> None:
    assert all(row.needs_of(facts) is row.needs for row in BOOT)


def test_needs_change_with_what_is_found_out_on_the_way(system: FakeSystem, loop: Loop) -> None:
    def find(_system: System, facts: Facts) -> Facts:
        return replace(facts, early=True, mode=Mode.GPU)

    executor(system, loop, step("find", find), step("attach", needs=("find",), early=("agent",)),
             step("agent", needs=("attach",), early=("find",))).run()
    assert system.said == ["agent", "attach"]


def all_needs(name: str, table: tuple[Step, ...] = BOOT) -> set[str]:
    """What has to be over before a step, directly or by way of others: the order of rows proves nothing."""
    row = next(row for row in table if row.name == name)
    return set(row.needs).union(*(all_needs(need, table) for need in row.needs))


@pytest.mark.parametrize("row", BOOT, ids=lambda row: row.name)
def test_a_row_is_carried_out_by_the_module_of_its_name(row: Step) -> None:
    module = row.load()
    for name, arguments in (("run", 2), ("deadline_s", 1), ("tell", 1)):
        assert len(inspect.signature(getattr(module, name)).parameters) == arguments, name


@pytest.mark.parametrize(("table", "text"), [
    ((step("a"), step("a")), "duplicate"),
    ((step("a", needs=("b",)), step("b", needs=("a",))), "never ready: a needs"),
    ((step("a", needs=("absent",)),), "absent"),
])
def test_tables_without_an_order_are_refused(table: tuple[Step, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        order(table)


def test_the_code_of_rows_to_come_is_loaded_while_one_waits(system: FakeSystem, loop: Loop) -> None:
    """Of those that apply; what a boot goes without is never read."""
    names = ("dcgm", "attest", "nics")
    kept = {name: sys.modules.pop(name, None) for name in (f"nvrc.steps.{one}" for one in names)}
    seen: list[str] = []

    def attach(_system: System, _facts: Facts) -> Facts:
        subject.load_ahead()
        seen.extend(one for one in names if f"nvrc.steps.{one}" in sys.modules)
        raise NvrcError("E_PERSISTENCED_STALL", "no more is looked at")

    subject = executor(system, loop, step("attach", attach), Step("dcgm", needs=("attach",)),
                       Step("attest", needs=("attach",), when=never), Step("nics", needs=("dcgm",)))
    try:
        with pytest.raises(BootError):
            subject.run()
    finally:
        sys.modules.update({name: module for name, module in kept.items() if module is not None})
    assert seen == ["dcgm", "nics"]


def test_a_row_that_leads_waits_before_others_begin(system: FakeSystem, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others begin when it waits, not when it is done: its wait is theirs."""
    monkeypatch.setattr("nvrc.engine.executor.HEAD_START_S", 60)
    told: list[str] = []

    def attach(_system: System, facts: Facts) -> Facts:
        time.sleep(0.01)
        told.append("started")
        system.waits.begin()
        until = time.monotonic() + 10
        while "lock" not in told and time.monotonic() < until:
            time.sleep(0.001)
        told.append("attached")
        return facts

    def lock(_system: System, facts: Facts) -> Facts:
        told.append("lock")
        return facts

    executor(system, loop, step("attach", attach, blocks=always, leads=True), step("lock", lock)).run()
    assert told == ["started", "lock", "attached"]


def test_a_row_that_leads_and_does_not_say_that_it_waits_holds_nobody_up_for_long(system: FakeSystem, loop: Loop) -> None:
    began, seen = threading.Event(), list[bool]()

    def lead(_system: System, facts: Facts) -> Facts:
        seen.append(began.wait(20))
        return facts

    def other(_system: System, facts: Facts) -> Facts:
        began.set()
        return facts

    executor(system, loop, step("lead", lead, blocks=always, leads=True), step("other", other)).run()
    assert seen == [True]


def test_a_row_that_leads_and_waits_for_nothing_is_over_when_it_ends(system: FakeSystem, loop: Loop,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvrc.engine.executor.HEAD_START_S", 60)
    start = time.monotonic()
    executor(system, loop, step("lead", blocks=always, leads=True), step("other")).run()
    assert time.monotonic() - start < 30


def test_needs_decide_the_order_not_the_rows(system: FakeSystem, loop: Loop) -> None:
    executor(system, loop, step("c", needs=("b",)), step("b", needs=("a",)), step("a")).run()
    assert system.said == ["a", "b", "c"]


def test_facts_pass_from_step_to_step_and_are_told(system: FakeSystem, loop: Loop) -> None:
    seen: list[Record] = []
    naming = Step("name", does=Doing(lambda _s, facts: replace(facts, gpu_root="x"), tell=lambda facts: f"root={facts.gpu_root}"))
    run = executor(system, loop, naming, step("b", needs=("name",)), finished=lambda record, _facts: seen.append(record))
    assert run.run().gpu_root == "x"
    assert [(record.name, record.outcome, record.detail) for record in seen] == [("name", "ok", "root=x"), ("b", "ok", "")]


def test_a_step_that_does_not_apply_is_skipped_and_does_not_hold_up_others(system: FakeSystem, loop: Loop) -> None:
    run = executor(system, loop, step("a", when=lambda facts: facts.mode is Mode.GPU), step("b", needs=("a",)))
    run.run()
    assert outcomes(run.records) == {"a": "skip", "b": "ok"}
    assert system.said == ["b"]


NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("bad", range(4))
def test_a_critical_failure_stops_what_comes_later(system: FakeSystem, loop: Loop, bad: int) -> None:
    table = [step(name, needs=NAMES[:i]) for i, name in enumerate(NAMES)]
    table[bad] = step(NAMES[bad], failing(NvrcError("E_MOUNT", "no", "do")), needs=NAMES[:bad])
    run = executor(system, loop, *table)
    with pytest.raises(BootError) as caught:
        run.run()
    assert (caught.value.trouble.step, caught.value.trouble.code, caught.value.trouble.hint) == (NAMES[bad], "E_MOUNT", "do")
    assert system.said == list(NAMES[:bad])
    assert [record.outcome for record in run.records] == ["ok"] * bad + ["fail"] + ["pending"] * (3 - bad)
    assert {(one.start_s, one.end_s, one.waited_s) for one in run.records[bad + 1:]} <= {(0.0, 0.0, 0.0)}


def test_details_of_a_failure_become_warnings_before_it_is_told(system: FakeSystem, loop: Loop) -> None:
    heard: list[tuple[str, tuple[Trouble, ...]]] = []
    error = NvrcError("E_PARAMETERS", "2 mistakes", "fix", ("one", "two"))
    with pytest.raises(BootError):
        executor(system, loop, step("a", failing(error)),
                 finished=lambda record, facts: heard.append((record.detail, facts.warnings))).run()
    assert heard == [("2 mistakes", (trouble("", "a", "one"), trouble("", "a", "two")))]


def test_a_warning_says_which_step_gave_it(system: FakeSystem, loop: Loop) -> None:
    def warn(_system: System, facts: Facts) -> Facts:
        return replace(facts, warnings=(*facts.warnings, make_trouble("E_GPU_PROBE", "one is missing", gpu="0000:40:00.0")))

    run = executor(system, loop, step("a", warn), step("b", warn, needs=("a",)))
    assert [(one.step, one.code, one.gpu, bool(one.hint)) for one in run.run().warnings] == [
        ("a", "E_GPU_PROBE", "0000:40:00.0", True), ("b", "E_GPU_PROBE", "0000:40:00.0", True)]


def test_what_a_failing_step_found_is_kept(system: FakeSystem, loop: Loop) -> None:
    error = FailedWithFacts(NvrcError("E_MOUNT", "no"), Facts(gpu_root="found"))
    run = executor(system, loop, step("a", failing(error)))
    with pytest.raises(BootError, match="no"):
        run.run()
    assert run.facts.gpu_root == "found"


def test_a_helper_that_fails_degrades(system: FakeSystem, loop: Loop) -> None:
    run = executor(system, loop, step("a", failing(NvrcError("E_MOUNT", "gone")), on_failure=DEGRADE), step("b", needs=("a",)))
    run.run()
    assert outcomes(run.records) == {"a": "warn", "b": "ok"}


def test_under_strict_no_failure_is_passed_over(system: FakeSystem, loop: Loop) -> None:
    parse_it = Step("parameters", does=Doing(lambda _system, facts: replace(facts, parameters=parse(b"nvrc.strict=on"))))
    run = executor(system, loop, parse_it, step("a", failing(NvrcError("E_DCGM", "gone")), on_failure=DEGRADE,
                                                needs=("parameters",)), step("b", needs=("a",)))
    with pytest.raises(BootError, match="gone"):
        run.run()
    assert outcomes(run.records) == {"parameters": "ok", "a": "fail", "b": "pending"}


def test_an_unforeseen_exception_names_its_place(system: FakeSystem, loop: Loop) -> None:
    with pytest.raises(BootError) as caught:
        executor(system, loop, step("a", failing(ZeroDivisionError("oops")))).run()
    assert caught.value.trouble.code == "E_INTERNAL"
    assert "ZeroDivisionError: oops at " in caught.value.trouble.what
    assert "test_executor.py:" in caught.value.trouble.what


def test_a_quick_step_that_overruns_fails_with_its_limit(system: FakeSystem, loop: Loop) -> None:
    limits: list[float] = []
    run = Executor(system, loop, (step("a", failing(DeadlineError())),), finished=lambda _r, _f: None, alarm=limits.append)
    with pytest.raises(BootError, match="a did not finish within 10 s") as caught:
        run.run()
    assert caught.value.trouble.code == "E_STEP_DEADLINE"
    assert limits == [10, 0], "the alarm is set for the step and taken back"


def test_events_are_served_between_quick_steps(system: FakeSystem, loop: Loop) -> None:
    def happen(_system: System, facts: Facts) -> Facts:
        loop.at(system.now(), lambda: system.say("event"))
        return facts

    executor(system, loop, step("a", happen), step("b", needs=("a",))).run()
    assert system.said == ["event", "b"]


def test_blocking_steps_run_side_by_side(system: FakeSystem, loop: Loop) -> None:
    meeting = threading.Barrier(2, timeout=60)

    def meet(field: str) -> Action:
        def run(_system: System, facts: Facts) -> Facts:
            meeting.wait()
            return replace(facts, **{field: field})  # type: ignore[arg-type]

        return run

    run = executor(system, loop, step("a", meet("extensions"), blocks=always), step("b", meet("gpu_root"), blocks=always),
                   step("c", needs=("a", "b")))
    facts = run.run()
    assert (facts.extensions, facts.gpu_root) == ("extensions", "gpu_root")
    assert system.said == ["c"]


def test_a_quick_step_runs_while_a_blocking_one_waits(system: FakeSystem, loop: Loop) -> None:
    quick_ran = threading.Event()

    def wait(_system: System, facts: Facts) -> Facts:
        assert quick_ran.wait(60)
        return facts

    def quick(_system: System, facts: Facts) -> Facts:
        quick_ran.set()
        return facts

    run = executor(system, loop, step("slow", wait, blocks=always), step("quick", quick))
    run.run()
    assert outcomes(run.records) == {"slow": "ok", "quick": "ok"}


def test_a_blocking_step_that_fails_stops_the_boot(system: FakeSystem, loop: Loop) -> None:
    with pytest.raises(BootError, match="wedged"):
        executor(system, loop, step("a", failing(NvrcError("E_MOUNT", "wedged")), blocks=always), step("b", needs=("a",))).run()
    assert system.said == []


def test_a_blocking_step_that_overruns_is_left_behind(system: FakeSystem, loop: Loop) -> None:
    release, ended = threading.Event(), threading.Event()

    def hang(_system: System, facts: Facts) -> Facts:
        release.wait(60)
        ended.set()
        return facts

    run = executor(system, loop, Step("a", does=Doing(hang, seconds(0)), blocks=always))
    with pytest.raises(BootError, match="a did not finish within 0 s"):
        run.run()
    assert run.records[0].waited_s == 0.0
    release.set()
    assert ended.wait(60)


def test_a_result_that_lies_there_at_the_deadline_counts(system: FakeSystem, loop: Loop) -> None:
    def work(_system: System, facts: Facts) -> Facts:
        return replace(facts, gpu_root="in time")

    def meanwhile(_system: System, facts: Facts) -> Facts:
        wait_until(lambda: bool(run._results))
        system.clock += 60
        return facts

    run = executor(system, loop, Step("a", does=Doing(work, seconds(5)), blocks=always), step("b", meanwhile))
    assert run.run().gpu_root == "in time"
    assert outcomes(run.records) == {"a": "ok", "b": "ok"}


def test_results_count_in_the_order_in_which_they_came(system: FakeSystem, loop: Loop) -> None:
    came: list[str] = []
    counted: list[str] = []

    def meanwhile(_system: System, facts: Facts) -> Facts:
        wait_until(lambda: len(run._results) == 3)
        came.extend(row[0].name for row in run._results)
        return facts

    run = executor(system, loop, *(step(name, blocks=always) for name in "abc"), step("d", meanwhile),
                   finished=lambda record, _facts: counted.append(record.name))
    run.run()
    assert counted == ["d", *came]


def test_a_step_that_ended_in_time_does_not_fail_when_its_limit_passes(system: FakeSystem, loop: Loop) -> None:
    def late(_system: System, facts: Facts) -> Facts:
        system.clock += 60
        return facts

    run = executor(system, loop, Step("a", does=Doing(lambda _s, facts: facts, seconds(5)), blocks=always),
                   step("b", late, needs=("a",)), step("c", needs=("b",)))
    run.run()
    assert outcomes(run.records) == {"a": "ok", "b": "ok", "c": "ok"}


def wait_until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_a_late_result_of_an_overrun_step_changes_nothing(system: FakeSystem, loop: Loop) -> None:
    """The step's thread ends after its deadline while another step still runs."""
    release, overdue = threading.Event(), threading.Event()

    def slow(_system: System, facts: Facts) -> Facts:
        overdue.wait(60)
        return replace(facts, gpu_root="late")

    def other(_system: System, facts: Facts) -> Facts:
        release.wait(60)
        return facts

    def note(record: Record, _facts: Facts) -> None:
        if record.name == "slow" and record.outcome == "warn":
            overdue.set()
            release.set()

    run = executor(system, loop, Step("slow", does=Doing(slow, seconds(0)), on_failure=DEGRADE, blocks=always),
                   step("other", other, blocks=always), finished=note)
    assert run.run().gpu_root is None
    assert outcomes(run.records) == {"slow": "warn", "other": "ok"}


def test_merge_refuses_two_writers() -> None:
    start = Facts()
    first = merge(start, start, replace(start, gpu_root="a"))
    with pytest.raises(ValueError, match="'gpu_root' has two writers"):
        merge(first, start, replace(start, gpu_root="b"))


def test_merge_appends_warnings_of_steps_that_ran_side_by_side() -> None:
    was, one, other = remark("w"), remark("a"), remark("b")
    start = Facts(warnings=(was,))
    first = merge(start, start, replace(start, warnings=(was, one)))
    assert merge(first, start, replace(start, warnings=(was, other))).warnings == (was, one, other)


AFTER_PERSISTENCED = ("gpu-settings", "cc-check", "cdi", "dcgm", "ready-state", "agent")


@pytest.mark.parametrize("name", AFTER_PERSISTENCED)
def test_nobody_touches_a_gpu_before_persistenced_is_up(name: str) -> None:
    rows = {row.name: row for row in BOOT}

    def needs(of: str) -> set[str]:
        return set(rows[of].needs).union(*(needs(one) for one in rows[of].needs))

    assert "persistenced" in needs(name)
    assert not needs("persistenced") & set(AFTER_PERSISTENCED)
    assert "modules" in needs("lock-modules")
