# SPDX-License-Identifier: Apache-2.0
"""The executor on tables of its own: order, merge, failure at every place, deadlines, work side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from nvrc.boot import BOOT
from nvrc.engine.conditions import always
from nvrc.engine.executor import BootError, DeadlineError, Executor, Record
from nvrc.engine.facts import Facts, FailedWithFacts, merge, replace
from nvrc.engine.table import DEGRADE, Action, Doing, Step, order, seconds
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.params.parse import parse
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode


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


def test_the_boot_in_the_order_in_which_it_runs() -> None:
    assert order(BOOT) == (
        "filesystems", "journal", "hardening", "parameters", "extensions", "identity", "loopback", "topology", "modules", "device-nodes",
        "lock-modules", "fabric", "persistenced", "gpu-settings", "cc-check", "cdi", "dcgm", "ready-state", "agent")


@pytest.mark.parametrize(("table", "text"), [
    ((step("a"), step("a")), "duplicate"),
    ((step("a", needs=("b",)), step("b", needs=("a",))), "never ready: a needs"),
    ((step("a", needs=("absent",)),), "absent"),
])
def test_tables_without_an_order_are_refused(table: tuple[Step, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        order(table)


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
    assert (caught.value.record.name, caught.value.record.code, caught.value.record.hint) == (NAMES[bad], "E_MOUNT", "do")
    assert system.said == list(NAMES[:bad])
    assert [record.outcome for record in run.records] == ["ok"] * bad + ["fail"] + ["pending"] * (3 - bad)


def test_details_of_a_failure_become_warnings_before_it_is_told(system: FakeSystem, loop: Loop) -> None:
    told: list[tuple[str, tuple[str, ...]]] = []
    error = NvrcError("E_PARAMETERS", "2 mistakes", "fix", ("one", "two"))
    with pytest.raises(BootError):
        executor(system, loop, step("a", failing(error)),
                 finished=lambda record, facts: told.append((record.detail, facts.warnings))).run()
    assert told == [("2 mistakes", ("one", "two"))]


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
    assert caught.value.record.code == "E_INTERNAL"
    assert "ZeroDivisionError: oops at " in caught.value.record.detail
    assert "test_executor.py:" in caught.value.record.detail


def test_a_quick_step_that_overruns_fails_with_its_limit(system: FakeSystem, loop: Loop) -> None:
    limits: list[float] = []
    run = Executor(system, loop, (step("a", failing(DeadlineError())),), finished=lambda _r, _f: None, alarm=limits.append)
    with pytest.raises(BootError, match="a did not finish within 10 s") as caught:
        run.run()
    assert caught.value.record.code == "E_STEP_DEADLINE"
    assert limits == [10, 0], "the alarm is set for the step and taken back"


def test_blocking_steps_run_side_by_side(system: FakeSystem, loop: Loop) -> None:
    meeting = threading.Barrier(2, timeout=5)

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
        assert quick_ran.wait(5)
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
        release.wait(5)
        ended.set()
        return facts

    with pytest.raises(BootError, match="a did not finish within 0 s"):
        executor(system, loop, Step("a", does=Doing(hang, seconds(0)), blocks=always)).run()
    release.set()
    assert ended.wait(5)


def test_a_late_result_of_an_overrun_step_changes_nothing(system: FakeSystem, loop: Loop) -> None:
    """The step's thread ends after its deadline while another step still runs."""
    release, overdue = threading.Event(), threading.Event()

    def slow(_system: System, facts: Facts) -> Facts:
        overdue.wait(5)
        return replace(facts, gpu_root="late")

    def other(_system: System, facts: Facts) -> Facts:
        release.wait(5)
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
    start = Facts(warnings=("w",))
    first = merge(start, start, replace(start, warnings=("w", "a")))
    assert merge(first, start, replace(start, warnings=("w", "b"))).warnings == ("w", "a", "b")


AFTER_PERSISTENCED = ("gpu-settings", "cc-check", "cdi", "dcgm", "ready-state", "agent")


@pytest.mark.parametrize("name", AFTER_PERSISTENCED)
def test_nobody_touches_a_gpu_before_persistenced_is_up(name: str) -> None:
    rows = {row.name: row for row in BOOT}

    def needs(of: str) -> set[str]:
        return set(rows[of].needs).union(*(needs(one) for one in rows[of].needs))

    assert "persistenced" in needs(name)
    assert not needs("persistenced") & set(AFTER_PERSISTENCED)
    assert "modules" in needs("lock-modules")
