# SPDX-License-Identifier: Apache-2.0
"""From a report, a status or a console log to what happened and who has to act. Codes come from the table of codes.

A console log may hold several boots, other programs' lines, and an end without a verdict: the last boot counts, only
lines of our grammar are believed, and a missing verdict is a finding of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from guest_cdi.lean.light import Enum
from nvrc.report.evidence import Evidence
from nvrc.report.report import Report
from nvrc.report.status import Status
from nvrc.report.story import ConsoleStory
from nvrc.report.troubles import list_troubles
from nvrc.vocabulary.console import ORDERLY, sentence
from nvrc.vocabulary.errors import find_code
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.transcript import is_forged
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

NOTHING_SAID = "no line of this init: it never ran, or this is another log"
UNKNOWN_CODE = "this program does not know the code; use the version that wrote the log"


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
    failure: Trouble | None = None
    cause: str = ""
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    who: str = ""
    also: tuple[Trouble, ...] = ()
    finished_steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    more_warnings: int = 0


def diagnose_story(story: ConsoleStory) -> Diagnosis:
    steps = tuple(f"{step.name} {step.outcome}" for step in story.steps)
    found = replace(_console_state(story), mode=story.mode, finished_steps=steps, warnings=tuple(story.warnings),
                    more_warnings=story.more_warnings)
    return with_evidence(found, story) if found.state in (State.FAILED, State.UNFINISHED, State.DEGRADED) else found


def with_evidence(found: Diagnosis, console: ConsoleStory) -> Diagnosis:
    """The diagnosis with what the lines of the kernel, the daemons and the agent say about its cause."""
    told = _explain_by(found, console.evidence, console.mode, console.confidential)
    if told is found and console.agent_words and found.failure and found.failure.code == "E_AGENT_EXIT":
        return replace(found, evidence=(*found.evidence, console.agent_words))
    return told


def _explain_by(found: Diagnosis, evidence: Evidence, mode_name: str, confidential: str) -> Diagnosis:
    code, step = (found.failure.code, found.failure.step) if found.failure else ("", "")
    mode = next((mode for mode in Mode if mode.value == mode_name), None)
    row = evidence.explain(code, step, mode, confidential)
    if row is None:
        return found
    return replace(found, cause=row.cause, remedy=row.remedy, who=row.who,
                   evidence=(*found.evidence, *evidence.lines(row)))


def diagnose_report(report: Report) -> Diagnosis:
    troubles = list_troubles(report.steps, report.gpus, told=report.troubles)
    finished = tuple(f"{step.name} {step.outcome.value}" for step in report.steps
                     if step.outcome not in (Outcome.PENDING, Outcome.RUNNING))
    if report.failure:
        evidence = Evidence()
        for line in report.log:
            evidence.hear(line)
        confidential = report.confidential.mode if report.confidential else ""
        found = _explain_by(failed(report.failure), evidence, report.mode, confidential)
    elif report.verdict is Verdict.BOOTING:
        running = ", ".join(step.name for step in report.steps if step.outcome is Outcome.RUNNING)
        found = Diagnosis(state=State.UNFINISHED, summary=f"no verdict yet; running: {running or 'nothing'}")
    elif troubles:
        found = _degraded(f"mode {report.mode or 'not decided'}", troubles)
    else:
        found = _by_verdict(report.verdict, report.mode)
    return _with_warnings(replace(found, finished_steps=finished), report)


def diagnose_status(status: Status) -> Diagnosis:
    if status.failure:
        found = failed(status.failure)
    elif status.degraded_by:
        found = _degraded(f"mode {status.mode or 'not decided'}", status.degraded_by)
    else:
        found = _by_verdict(status.verdict, status.mode)
    services = tuple(f"{service.name} {service.state.value}" for service in status.services)
    return _with_warnings(replace(found, finished_steps=services), status)


def _with_warnings(found: Diagnosis, document: Report | Status) -> Diagnosis:
    """What was told besides, as it stands on the console."""
    shown = (found.failure, *found.also)
    return replace(found, warnings=(*(sentence(one) for one in document.troubles if one not in shown),
                                    *document.notes))


def _console_state(console: ConsoleStory) -> Diagnosis:
    found = _told_state(console)
    if not is_forged(console.verdicts):
        return found
    state = State.FAILED if found.state is State.FAILED else State.DEGRADED
    return replace(found, state=state, summary=(
        f"{len(console.verdicts)} verdicts where PID 1 gives one: one of them is forged by a program that writes "
        f"to the console. The first says: {found.summary}"))


def _told_state(console: ConsoleStory) -> Diagnosis:
    if isinstance(console.end, Trouble):
        return failed(console.end)
    if console.end is not None and console.end.code != ORDERLY:
        return failed(Trouble(code=console.end.code, step=AFTER_THE_BOOT, what=console.end.what))
    if console.last_words and console.end is None:
        return Diagnosis(state=State.FAILED, summary=console.last_words)
    troubles = tuple(_told_troubles(console)) if console.ready else ()
    if console.end is not None:
        summary = f"the VM shut down cleanly: {console.end.what}"
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


def _told_troubles(console: ConsoleStory) -> Iterator[Trouble]:
    """Of steps that the boot went on without, and of what PID 1 said with a code afterwards."""
    for step in console.steps:
        if step.trouble is not None:
            yield step.trouble
    yield from console.troubles


def _degraded(summary: str, troubles: tuple[Trouble, ...]) -> Diagnosis:
    """The first trouble is explained, the others are named."""
    codes = ", ".join(dict.fromkeys(trouble.code or f"step {trouble.step}" for trouble in troubles))
    found = Diagnosis(state=State.DEGRADED, summary=f"{summary}; degraded by {codes}", also=troubles[1:])
    return _explained(found, troubles[0]) if troubles[0].code else replace(found, failure=troubles[0])


def _by_verdict(verdict: Verdict, mode: str) -> Diagnosis:
    state = {Verdict.READY: State.READY, Verdict.NO_GPU: State.READY, Verdict.DEGRADED: State.DEGRADED,
             Verdict.FAILED: State.FAILED, Verdict.BOOTING: State.UNFINISHED}[verdict]
    return Diagnosis(state=state, summary=f"{verdict.value}, mode {mode or 'not decided'}")


def failed(failure: Trouble) -> Diagnosis:
    where = "after the boot" if failure.step == AFTER_THE_BOOT else f"in step {failure.step}"
    return _explained(Diagnosis(state=State.FAILED, summary=f"{failure.code} {where}"), failure)


def _explained(diagnosis: Diagnosis, failure: Trouble) -> Diagnosis:
    row = find_code(failure.code)
    if row is None:
        return replace(diagnosis, failure=failure, cause=UNKNOWN_CODE)
    return replace(diagnosis, failure=failure, cause=row.meaning, remedy=row.remedy, who=row.who)
