# SPDX-License-Identifier: Apache-2.0
"""Runs a boot table: starts what is ready, keeps time, records the outcome, stops at the first critical failure.

Knows no step by name. Quick steps run on the calling thread, in table order; a row that says `blocks` runs on a
thread of its own while the event loop goes on. A deadline ends a step that waits interruptibly; a thread that is
stuck in the kernel is left behind, because a critical failure ends the machine anyway.
"""

from __future__ import annotations

import os

from guest_cdi.lean.light import TYPE_CHECKING, Callable, dataclass, replace
from nvrc.engine.conditions import is_strict
from nvrc.engine.facts import Facts, FailedWithFacts, merge
from nvrc.engine.table import OnFailure, Step
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble, remark

if TYPE_CHECKING:
    from nvrc.engine.table import StepModule

HEAD_START_S = 0.05  # at most, for what has to be quick
OK, SKIPPED, FAILED, DEGRADED, RUNNING, PENDING = "ok", "skip", "fail", "warn", "running", "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one step; times are those of the boot clock. `waited_s`: for driver, daemons and library."""

    name: str
    outcome: str = PENDING
    start_s: float = 0.0
    end_s: float = 0.0
    waited_s: float = 0.0
    detail: str = ""
    trouble: Trouble | None = None

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


class BootError(Exception):
    """A critical step failed; nothing after it was started."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.what)
        self.trouble = trouble


class DeadlineError(Exception):
    """Raised into the step that overran, by whoever watches the clock for the executor."""


class Executor:
    """One run of one table."""

    def __init__(self, system: System, loop: Loop, table: tuple[Step, ...], *,
                 finished: Callable[[Record, Facts], None], alarm: Callable[[float], None]) -> None:
        self._system = system
        self._loop = loop
        self._table = table
        self._finished = finished
        self._alarm = alarm
        self._records = {step.name: Record(name=step.name) for step in table}
        self._facts = Facts()
        self._failure: Trouble | None = None
        self._results: list[tuple[Step, Facts, Facts | Exception, float]] = []

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(self._records.values())

    @property
    def facts(self) -> Facts:
        return self._facts

    def warn(self, text: str) -> None:
        """A warning that belongs to no step."""
        self._facts = replace(self._facts, warnings=(*self._facts.warnings, remark(text)))

    def run(self) -> Facts:
        """Every step to its outcome, or BootError."""
        while self._failure is None:
            if step := self._next_ready():
                self._begin(step)
            elif self._running():
                self._loop.run(lambda: bool(self._results) or self._failure is not None)
                self._collect()
            else:
                return self._facts
        raise BootError(self._failure)

    def load_ahead(self) -> None:
        """The code of the rows that are to come and apply, for whoever knows that those which run wait."""
        for step in self._table:
            if self._records[step.name].outcome == PENDING and step.when(self._facts):
                step.load()

    def _next_ready(self) -> Step | None:
        for step in self._table:
            if self._records[step.name].outcome == PENDING and all(map(self._is_settled, step.needs_of(self._facts))):
                return step
        return None

    def _is_settled(self, name: str) -> bool:
        return self._records[name].outcome not in (PENDING, RUNNING)

    def _running(self) -> bool:
        return any(record.outcome == RUNNING for record in self._records.values())

    def _begin(self, step: Step) -> None:
        now = self._system.now()
        self._records[step.name] = Record(name=step.name, outcome=RUNNING, start_s=now, end_s=now)
        if not step.when(self._facts):
            self._settle(step, SKIPPED)
        elif step.blocks(self._facts):
            self._run_beside(step, step.load(), self._facts)
        else:
            self._run_here(step, step.load(), self._facts)

    def _run_here(self, step: Step, doing: StepModule, given: Facts) -> None:
        self._alarm(doing.deadline_s(given))
        self._system.waits.take()
        try:
            returned: Facts | Exception = doing.run(self._system, given)
        except Exception as err:
            returned = err
        finally:
            self._alarm(0)
        self._conclude(step, given, returned, self._system.waits.take())
        self._loop.turn()

    def _run_beside(self, step: Step, doing: StepModule, given: Facts) -> None:
        import _thread

        ready, done = os.pipe2(os.O_CLOEXEC)
        at_work = _thread.allocate_lock()
        at_work.acquire()

        def work() -> None:
            self._system.waits.expect(at_work.release)
            try:
                returned: Facts | Exception = doing.run(self._system, given)
            except Exception as err:
                returned = err
            self._results.append((step, given, returned, self._system.waits.take()))
            self._system.waits.begin()
            os.close(done)

        def wake() -> None:
            self._loop.unwatch(ready)
            os.close(ready)

        def expire() -> None:
            if self._records[step.name].outcome == RUNNING and all(step is not row[0] for row in self._results):
                self._conclude(step, given, DeadlineError())

        self._loop.watch(ready, wake)
        self._loop.at(self._system.now() + doing.deadline_s(given), expire)
        _thread.start_new_thread(work, ())
        if step.leads:
            at_work.acquire(timeout=HEAD_START_S)

    def _collect(self) -> None:
        while self._results:
            step, given, returned, waited_s = self._results.pop(0)
            if self._records[step.name].outcome == RUNNING:
                self._conclude(step, given, returned, waited_s)

    def _conclude(self, step: Step, given: Facts, returned: Facts | Exception, waited_s: float = 0.0) -> None:
        self._records[step.name] = replace(self._records[step.name], waited_s=waited_s)
        if isinstance(returned, Exception):
            if isinstance(returned, FailedWithFacts):
                self._facts = merge(self._facts, given, _placed(step, given, returned.facts))
            self._fail(step, describe(returned, step, given))
            return
        self._facts = merge(self._facts, given, _placed(step, given, returned))
        self._settle(step, OK, step.load().tell(returned))

    def _fail(self, step: Step, error: NvrcError) -> None:
        critical = step.on_failure is OnFailure.POWER_OFF or is_strict(self._facts)
        told = tuple(replace(remark(text), step=step.name) for text in error.details)
        self._facts = replace(self._facts, warnings=self._facts.warnings + told)
        trouble = replace(error.trouble, step=step.name)
        self._settle(step, FAILED if critical else DEGRADED, trouble.what, trouble)
        if critical:
            self._failure = trouble

    def _settle(self, step: Step, outcome: str, detail: str = "", trouble: Trouble | None = None) -> None:
        record = replace(self._records[step.name], outcome=outcome, end_s=self._system.now(), detail=detail,
                         trouble=trouble)
        self._records[step.name] = record
        self._finished(record, self._facts)


def _placed(step: Step, given: Facts, returned: Facts) -> Facts:
    """What a step returned, with its name in the warnings that it gave."""
    old, new = returned.warnings[:len(given.warnings)], returned.warnings[len(given.warnings):]
    if not new:
        return returned
    return replace(returned, warnings=old + tuple(replace(one, step=step.name) for one in new))


def describe(error: Exception, step: Step, facts: Facts) -> NvrcError:
    """Any exception as one with a code; those that nobody foresaw name the place where they were raised."""
    if isinstance(error, NvrcError):
        return error
    if isinstance(error, DeadlineError):
        return NvrcError("E_STEP_DEADLINE", f"{step.name} did not finish within {step.load().deadline_s(facts):g} s")
    return NvrcError("E_INTERNAL", unforeseen(error))


def unforeseen(error: BaseException) -> str:
    """The exception, and the innermost line of code that it came through."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} at {place}"
