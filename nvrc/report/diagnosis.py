# SPDX-License-Identifier: Apache-2.0
"""From a report, a status or a console log to what happened and who has to act. Codes come from the table of codes.

A console log may hold several boots, other programs' lines, and an end without a verdict: the last boot counts, only
lines of our grammar are believed, and a missing verdict is a finding of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from guest_cdi.lean.light import Enum
from nvrc.report.evidence import LINE_LIMIT, Evidence
from nvrc.report.report import Failure, Report
from nvrc.report.status import Status
from nvrc.report.troubles import list_troubles, make_trouble, read_trouble
from nvrc.vocabulary.console import EndLine, FatalLine, ReadyLine, StepLine, WarningLine, parse_line
from nvrc.vocabulary.errors import find_code
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.verdict import Outcome, Verdict

ORDERLY = "OK"
NOTHING_SAID = "no line of this init: it never ran, or this is another log"
UNKNOWN_CODE = "this program does not know the code; use the version that wrote the log"
MOST_STEPS, MOST_WARNINGS = 64, 100
_BOOT_STARTS = re.compile(r"(?:\[ *0\.000000\](?:\[ *[TC][0-9]+\])? )?Linux version [0-9]")
# What the interpreter, an init that is not ours, or the kernel says when it gives up.
# A record of the kernel's log: then this is a console, whoever else has written to it.
_KERNEL = re.compile(r"(?:<[0-9]{1,3}>)?\[ *[0-9]+\.[0-9]{6}\]")
_LAST_WORDS = re.compile(r"Fatal Python error: .*|NVRC panic: .*|Kernel panic - not syncing: .*")


class State(Enum):
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    ENDED = "ended"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """`evidence`: lines of others that show the cause. `alike`: sandboxes that ended the same way.

    `more_warnings`: how many are not listed.
    """

    state: State
    summary: str
    sandbox: str = ""
    alike: tuple[str, ...] = ()
    mode: str = ""
    failure: Failure | None = None
    cause: str = ""
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    who: str = ""
    also: tuple[Failure, ...] = ()
    finished_steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    more_warnings: int = 0


class ConsoleStory:
    """What the last boot on one console has said so far. Bounded: a log may be of any length, and hostile."""

    def __init__(self) -> None:
        self.has_kernel = False
        self._restart()

    def _restart(self) -> None:
        self.steps: list[StepLine] = []
        self.warnings: list[str] = []
        self.troubles: list[Failure] = []
        self.more_warnings = 0
        self.ready: ReadyLine | None = None
        self.end: EndLine | FatalLine | None = None
        self.last_words = ""
        self.agent_words = ""
        self.evidence = Evidence()

    @property
    def is_ours(self) -> bool:
        return bool(self.steps or self.warnings or self.ready or self.end or self.last_words)

    def hear(self, text: str) -> None:
        if _BOOT_STARTS.match(text):
            self._restart()
            self.has_kernel = True
            return
        match parse_line(text):
            case StepLine() as step:
                if len(self.steps) < MOST_STEPS:
                    self.steps.append(step)
            case WarningLine(text=warning):
                self._warn(warning)
            case ReadyLine() as ready:
                self.ready = ready
            case EndLine() | FatalLine() as end:
                # The first verdict counts: what comes after a fatal line is the way down.
                self.end = self.end or end
            case _:
                self._hear_others(text)

    def hear_agent(self, text: str) -> None:
        """An error of the agent: its last one says why it gave up."""
        self.agent_words = text[:LINE_LIMIT]

    def _warn(self, warning: str) -> None:
        if (trouble := read_trouble(warning)) and len(self.troubles) < MOST_WARNINGS:
            self.troubles.append(trouble)
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(warning)
        else:
            self.more_warnings += 1

    def _hear_others(self, text: str) -> None:
        self.has_kernel = self.has_kernel or _KERNEL.match(text) is not None
        if not self.last_words and (found := _LAST_WORDS.search(text.rstrip("\r\n"))):
            self.last_words = found[0][:LINE_LIMIT]
        self.evidence.hear(text)

    @property
    def mode(self) -> str:
        if self.ready is not None:
            return self.ready.mode
        return next((step.detail.partition(":")[0] for step in self.steps if step.name == "topology"), "")

    @property
    def confidential(self) -> str:
        return next((step.detail for step in self.steps if step.name == "cc-check"), "")

    def diagnose(self) -> Diagnosis:
        steps = tuple(f"{step.name} {step.outcome}" for step in self.steps)
        found = replace(_console_state(self), mode=self.mode, finished_steps=steps, warnings=tuple(self.warnings),
                        more_warnings=self.more_warnings)
        return with_evidence(found, self) if found.state in (State.FAILED, State.UNFINISHED, State.DEGRADED) else found


def with_evidence(found: Diagnosis, console: ConsoleStory) -> Diagnosis:
    """The diagnosis with what the lines of the kernel, the daemons and the agent say about its cause."""
    code = found.failure.code if found.failure else ""
    mode = next((mode for mode in Mode if mode.value == console.mode), None)
    row = console.evidence.explain(code, mode, console.confidential)
    if row is None:
        is_agents = code == "E_AGENT_EXIT" and console.agent_words
        return replace(found, evidence=(*found.evidence, console.agent_words)) if is_agents else found
    return replace(found, cause=row.cause, remedy=row.remedy, who=row.who,
                   evidence=(*found.evidence, *console.evidence.lines(row)))


def diagnose_console(lines: Iterable[str]) -> Diagnosis:
    console = ConsoleStory()
    for text in lines:
        console.hear(text)
    return console.diagnose()


def diagnose_report(report: Report) -> Diagnosis:
    troubles = list_troubles(report.steps, report.gpus, news=report.warnings)
    finished = tuple(f"{step.name} {step.outcome.value}" for step in report.steps
                     if step.outcome not in (Outcome.PENDING, Outcome.RUNNING))
    if report.failure:
        found = failed(report.failure)
    elif report.verdict is Verdict.BOOTING:
        running = ", ".join(step.name for step in report.steps if step.outcome is Outcome.RUNNING)
        found = Diagnosis(state=State.UNFINISHED, summary=f"no verdict yet; running: {running or 'nothing'}")
    elif troubles:
        found = _degraded(f"mode {report.mode or 'not decided'}", troubles)
    else:
        found = _by_verdict(report.verdict, report.mode)
    return replace(found, finished_steps=finished, warnings=report.warnings)


def diagnose_status(status: Status) -> Diagnosis:
    if status.failure:
        found = failed(status.failure)
    elif status.degraded_by:
        found = _degraded(f"mode {status.mode or 'not decided'}", status.degraded_by)
    else:
        found = _by_verdict(status.verdict, status.mode)
    services = tuple(f"{service.name} {service.state.value}" for service in status.services)
    return replace(found, finished_steps=services, warnings=status.warnings)


def _console_state(console: ConsoleStory) -> Diagnosis:
    if isinstance(console.end, FatalLine):
        return failed(Failure(**console.end._asdict()))
    if console.end is not None and console.end.code != ORDERLY:
        return failed(Failure(code=console.end.code, step="supervise", what=console.end.what, hint=""))
    if console.last_words and console.end is None:
        return Diagnosis(state=State.FAILED, summary=console.last_words)
    troubles = tuple(_told_troubles(console)) if console.ready else ()
    if console.end is not None:
        summary = f"the VM went down in order: {console.end.what}"
        return _degraded(summary, troubles) if troubles else Diagnosis(state=State.ENDED, summary=summary)
    if console.ready is not None:
        ready = console.ready
        summary = (f"ready in {ready.seconds:.3f} s, mode {ready.mode}, {ready.gpus} GPUs, "
                   f"{ready.cdi} CDI devices")
        return _degraded(summary, troubles) if troubles else Diagnosis(state=State.READY, summary=summary)
    if console.steps:
        return Diagnosis(state=State.UNFINISHED, summary=(
            f"no verdict; the last step that finished is {console.steps[-1].name}. What comes after it in the table "
            "hangs, or the VM was ended from outside"))
    return Diagnosis(state=State.UNFINISHED, summary=NOTHING_SAID)


def _told_troubles(console: ConsoleStory) -> Iterator[Failure]:
    """Of steps that the boot went on without, and of what PID 1 said with a code afterwards."""
    for step in console.steps:
        if step.outcome == Outcome.WARN.value:
            told = read_trouble(step.detail)
            yield make_trouble(told.code, step.name, told.what) if told else make_trouble("", step.name, step.detail)
    yield from console.troubles


def _degraded(summary: str, troubles: tuple[Failure, ...]) -> Diagnosis:
    """The first trouble is explained, the others are named."""
    codes = ", ".join(dict.fromkeys(trouble.code or f"step {trouble.step}" for trouble in troubles))
    found = Diagnosis(state=State.DEGRADED, summary=f"{summary}; degraded by {codes}", also=troubles[1:])
    return _explained(found, troubles[0]) if troubles[0].code else replace(found, failure=troubles[0])


def _by_verdict(verdict: Verdict, mode: str) -> Diagnosis:
    state = {Verdict.READY: State.READY, Verdict.NO_GPU: State.READY, Verdict.DEGRADED: State.DEGRADED,
             Verdict.FAILED: State.FAILED, Verdict.BOOTING: State.UNFINISHED}[verdict]
    return Diagnosis(state=state, summary=f"{verdict.value}, mode {mode or 'not decided'}")


def failed(failure: Failure) -> Diagnosis:
    where = "after the boot" if failure.step == "supervise" else f"in step {failure.step}"
    return _explained(Diagnosis(state=State.FAILED, summary=f"{failure.code} {where}"), failure)


def _explained(diagnosis: Diagnosis, failure: Failure) -> Diagnosis:
    row = find_code(failure.code)
    if row is None:
        return replace(diagnosis, failure=failure, cause=UNKNOWN_CODE)
    return replace(diagnosis, failure=failure, cause=row.meaning, remedy=row.remedy, who=row.who)
