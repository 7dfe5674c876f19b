# SPDX-License-Identifier: Apache-2.0
"""What a run means: good or not, in one sentence, and what to do next. A decision table over Run; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nvrc.vocabulary.console import FatalLine, ReadyLine
from nvrc_lab.watch.watch import Ending, Run

ORDERLY = "OK"
CODE_LAB = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`code` is the guest's failure code, OK, or "-" when the guest gave none."""

    is_good: bool
    code: str
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    when: Callable[[Run], bool]
    say: Callable[[Run], Judgement]


def judge(run: Run) -> Judgement:
    return next(rule.say(run) for rule in _RULES if rule.when(run))


def _bad(what: str, hint: str, code: str = CODE_LAB) -> Judgement:
    return Judgement(is_good=False, code=code, what=what, hint=hint)


def _killed(run: Run) -> Judgement:
    said = run.complaint.splitlines()[-1:]
    what = f"QEMU was ended by {run.killed_by} after {run.seconds:.1f} s, not by the guest"
    if run.killed_by in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"):
        return _bad(what, "somebody on this host sent it; SIGKILL is also what the kernel does when memory runs out "
                          "(see dmesg): run fewer machines at a time, --workers 1")
    return _bad(what + "".join(f": {line}" for line in said), "QEMU itself crashed; --accel tcg rules out KVM, else "
                "try another version of qemu-system-x86")


def _refused(run: Run) -> Judgement:
    lines = run.complaint.splitlines() or ["(it said nothing)"]
    return _bad(f"QEMU ended with status {run.status} before the guest said anything: {lines[-1]}",
                "read the line above; --accel tcg rules out KVM, and the kernel must be an x86-64 bzImage")


def _panic(run: Run) -> Judgement:
    return _bad(f"the guest kernel panicked: {run.story.panic}",
                "read the kernel's last lines in the console file; 'Attempted to kill init': PID 1 itself died")


def _fatal(run: Run) -> Judgement:
    line = run.story.failure
    assert line is not None  # the rule's condition
    return _bad(f"{line.step}: {line.what}", line.hint, line.code)


def _repeated(run: Run) -> Judgement:
    return _bad(f"the guest gave {len(run.story.verdicts)} verdicts about one boot: one of them is forged",
                "PID 1 says READY or FATAL once; see in the console file what else writes to the console or /dev/kmsg")


def _silent(run: Run) -> Judgement:
    return _bad(f"the console stayed empty for {run.seconds:.0f} s",
                "the kernel needs console=ttyS0 and a serial driver; --accel tcg rules out KVM")


def _garbage(run: Run) -> Judgement:
    return _bad(f"the console carries garbage: {run.story.strange_bytes} of {run.story.size_bytes} bytes are no text",
                "check that kernel and initrd are what they should be, and that nothing binary is printed to ttyS0")


def _stalled(run: Run) -> Judgement:
    done = run.story.steps[-1].line.name if run.story.steps else "none"
    return _bad(f"no verdict after {run.seconds:.0f} s ({run.ending.value}); last finished step: {done}",
                "read the last console lines; --timeout gives it longer")


def _mute_end(run: Run) -> Judgement:
    return _bad(f"the machine ended after {run.seconds:.1f} s without a verdict",
                "PID 1 did not get to speak: check that the initrd has an executable /init for this kernel")


def _endless(run: Run) -> Judgement:
    return _bad(f"READY, but the machine still ran after {run.seconds:.0f} s",
                "the agent did not end; --linger N stops the machine N s after READY")


def _ended(run: Run) -> Judgement:
    end = run.story.end
    if end is None:
        return _bad("READY, but the machine ended without saying why", "read the last console lines")
    if end.code != ORDERLY:
        return _bad(f"after READY: {end.what}", "read what the agent said last in the console file", end.code)
    return Judgement(is_good=True, code=ORDERLY, what=end.what)


def _stopped(_run: Run) -> Judgement:
    return Judgement(is_good=True, code=ORDERLY, what="READY; the lab stopped the machine as asked")


def is_about_the_boot(failure: FatalLine | None) -> bool:
    """After READY only supervision can fail, or PID 1 itself."""
    return failure is not None and failure.step not in ("supervise", "pid1")


# The first rule that applies decides.
_RULES = (
    _Rule(when=lambda run: bool(run.killed_by), say=_killed),
    _Rule(when=lambda run: run.story.size_bytes == 0 and run.ending is Ending.GUEST, say=_refused),
    _Rule(when=lambda run: bool(run.story.panic), say=_panic),
    _Rule(when=lambda run: sum(isinstance(line, ReadyLine) for line in run.story.verdicts) > 1, say=_repeated),
    _Rule(when=lambda run: len(run.story.verdicts) > (2 if run.story.ready else 1), say=_repeated),
    _Rule(when=lambda run: run.story.ready is not None and is_about_the_boot(run.story.failure), say=_repeated),
    _Rule(when=lambda run: run.story.failure is not None, say=_fatal),
    _Rule(when=lambda run: run.story.ready is not None and run.ending is Ending.STOPPED, say=_stopped),
    _Rule(when=lambda run: run.story.ready is not None and run.ending is Ending.GUEST, say=_ended),
    _Rule(when=lambda run: run.story.ready is not None, say=_endless),
    _Rule(when=lambda run: run.story.size_bytes == 0, say=_silent),
    _Rule(when=lambda run: run.story.is_garbage, say=_garbage),
    _Rule(when=lambda run: run.ending is Ending.GUEST, say=_mute_end),
    _Rule(when=lambda _run: True, say=_stalled),
)
