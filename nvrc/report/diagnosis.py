# SPDX-License-Identifier: Apache-2.0
"""From a report, a status or a console log to what happened and who has to act. Codes come from the table of codes.

A console log may hold several boots, other programs' lines, and an end without a verdict: the last boot counts, only
lines of our grammar are believed, and a missing verdict is a finding of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from guest_cdi.lean.light import Enum
from nvrc.report.report import Failure, Report
from nvrc.report.status import Status
from nvrc.report.troubles import list_troubles, make_trouble, read_trouble
from nvrc.vocabulary.console import EndLine, FatalLine, ReadyLine, StepLine, WarningLine, parse_line
from nvrc.vocabulary.errors import find_code
from nvrc.vocabulary.verdict import Outcome, Verdict

ORDERLY = "OK"
_BOOT_STARTS = re.compile(r"(?:\[ *0\.000000\](?:\[ *[TC][0-9]+\])? )?Linux version [0-9]")
# What the interpreter, an init that is not ours, or the kernel says when it gives up.
_LAST_WORDS = re.compile(r"Fatal Python error: .*|NVRC panic: .*|Kernel panic - not syncing: .*")


class State(Enum):
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    ENDED = "ended"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    state: State
    summary: str
    failure: Failure | None = None
    meaning: str = ""
    remedy: str = ""
    who: str = ""
    also: tuple[Failure, ...] = ()
    finished_steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Console:
    """What one boot has said so far."""

    steps: tuple[StepLine, ...] = ()
    warnings: tuple[str, ...] = ()
    verdicts: tuple[ReadyLine | FatalLine | EndLine, ...] = ()
    ready: ReadyLine | None = None
    end: EndLine | FatalLine | None = None
    last_words: str = ""


def diagnose_console(lines: Iterable[str]) -> Diagnosis:
    console = _Console()
    for text in lines:
        console = _Console() if _BOOT_STARTS.match(text) else _heard(console, text)
    steps = tuple(f"{step.name} {step.outcome}" for step in console.steps)
    return replace(_console_state(console), finished_steps=steps, warnings=console.warnings)


def diagnose_report(report: Report) -> Diagnosis:
    troubles = list_troubles(report.steps, report.gpus, news=report.warnings)
    finished = tuple(f"{step.name} {step.outcome.value}" for step in report.steps
                     if step.outcome not in (Outcome.PENDING, Outcome.RUNNING))
    if report.failure:
        found = _failed(report.failure)
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
        found = _failed(status.failure)
    elif status.degraded_by:
        found = _degraded(f"mode {status.mode or 'not decided'}", status.degraded_by)
    else:
        found = _by_verdict(status.verdict, status.mode)
    services = tuple(f"{service.name} {service.state.value}" for service in status.services)
    return replace(found, finished_steps=services, warnings=status.warnings)


def _heard(console: _Console, text: str) -> _Console:
    match parse_line(text):
        case StepLine() as step:
            return replace(console, steps=(*console.steps, step))
        case WarningLine(text=warning):
            return replace(console, warnings=(*console.warnings, warning))
        case ReadyLine() as ready:
            first = None if console.verdicts else ready
            return replace(console, verdicts=(*console.verdicts, ready), ready=console.ready or first)
        case EndLine() | FatalLine() as end:
            # The first verdict counts: what comes after a fatal line is the way down.
            return replace(console, verdicts=(*console.verdicts, end), end=console.end or end)
        case _:
            found = _LAST_WORDS.search(text.rstrip("\r\n"))
            return replace(console, last_words=found[0]) if found and not console.last_words else console


def _console_state(console: _Console) -> Diagnosis:
    found = _told_state(console)
    if not _is_forged(console.verdicts):
        return found
    state = State.FAILED if found.state is State.FAILED else State.DEGRADED
    return replace(found, state=state, summary=(
        f"{len(console.verdicts)} verdicts where PID 1 gives one: one of them is forged, by whatever else writes "
        f"to the console. The first says: {found.summary}"))


def _is_forged(verdicts: Sequence[ReadyLine | FatalLine | EndLine]) -> bool:
    """PID 1 says READY or FATAL once, after READY one END or a FATAL of `supervise`, and one of itself at worst."""
    *told, last = verdicts or (None,)
    if not (told and isinstance(last, FatalLine) and last.step == "pid1"):
        told = list(verdicts)
    if told and isinstance(told[0], ReadyLine):
        told = told[1:]
        return len(told) > 1 or any(isinstance(one, ReadyLine) or not _is_way_down(one) for one in told)
    return len(told) > 1


def _is_way_down(line: FatalLine | EndLine) -> bool:
    return isinstance(line, EndLine) or line.step in ("supervise", "pid1")


def _told_state(console: _Console) -> Diagnosis:
    if isinstance(console.end, FatalLine):
        return _failed(Failure(**console.end._asdict()))
    if console.end is not None and console.end.code != ORDERLY:
        return _failed(Failure(code=console.end.code, step="supervise", what=console.end.what, hint=""))
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
    return Diagnosis(state=State.UNFINISHED, summary="no line of this init: it never ran, or this is another log")


def _told_troubles(console: _Console) -> Iterator[Failure]:
    """Of steps that the boot went on without, and of what PID 1 said with a code afterwards."""
    for step in console.steps:
        if step.outcome == Outcome.WARN.value:
            told = read_trouble(step.detail)
            yield make_trouble(told.code, step.name, told.what) if told else make_trouble("", step.name, step.detail)
    yield from filter(None, map(read_trouble, console.warnings))


def _degraded(summary: str, troubles: tuple[Failure, ...]) -> Diagnosis:
    """The first trouble is explained, the others are named."""
    codes = ", ".join(dict.fromkeys(trouble.code or f"step {trouble.step}" for trouble in troubles))
    found = Diagnosis(state=State.DEGRADED, summary=f"{summary}; degraded by {codes}", also=troubles[1:])
    return _explained(found, troubles[0]) if troubles[0].code else replace(found, failure=troubles[0])


def _by_verdict(verdict: Verdict, mode: str) -> Diagnosis:
    state = {Verdict.READY: State.READY, Verdict.NO_GPU: State.READY, Verdict.DEGRADED: State.DEGRADED,
             Verdict.FAILED: State.FAILED, Verdict.BOOTING: State.UNFINISHED}[verdict]
    return Diagnosis(state=state, summary=f"{verdict.value}, mode {mode or 'not decided'}")


def _failed(failure: Failure) -> Diagnosis:
    where = "after the boot" if failure.step == "supervise" else f"in step {failure.step}"
    return _explained(Diagnosis(state=State.FAILED, summary=f"{failure.code} {where}"), failure)


def _explained(diagnosis: Diagnosis, failure: Failure) -> Diagnosis:
    row = find_code(failure.code)
    if row is None:
        return replace(diagnosis, failure=failure, meaning="this program does not know the code; use the version that "
                                                           "wrote the log")
    return replace(diagnosis, failure=failure, meaning=row.meaning, remedy=row.remedy, who=row.who)
