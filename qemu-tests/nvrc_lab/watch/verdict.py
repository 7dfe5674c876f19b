# SPDX-License-Identifier: Apache-2.0
"""What a run means: good or not, in one sentence, and what to do next. A decision table over Run; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nvrc.vocabulary.transcript import is_forged
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


def judge(run: Run, *, has_host_clock: bool = False) -> Judgement:
    """`has_host_clock`: the guest's clock has to go with the host's, and a run in which it does not is no good."""
    found = next(rule.say(run) for rule in _RULES if rule.when(run))
    problem = run.clocks.problem() if has_host_clock and found.is_good else ""
    return _bad(problem, "run it again; if it stays so, the host's own clock is worth a look") if problem else found


def _bad(what: str, hint: str, code: str = CODE_LAB) -> Judgement:
    return Judgement(is_good=False, code=code, what=what, hint=hint)


def _killed(run: Run) -> Judgement:
    said = run.complaint.splitlines()[-1:]
    what = f"QEMU was ended by {run.killed_by} after {run.seconds:.1f} s, not by the guest"
    if run.killed_by in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"):
        return _bad(what, "find who sent it on this host; SIGKILL is also what the kernel does when memory runs out "
                          "(see dmesg): run fewer machines at a time, --workers 1")
    return _bad(what + "".join(f": {line}" for line in said), "QEMU itself crashed; --accel tcg rules out KVM, else "
                "try another version of qemu-system-x86")


def _refused(run: Run) -> Judgement:
    lines = run.complaint.splitlines() or ["(it printed nothing)"]
    return _bad(f"QEMU exited with status {run.status} before the guest said anything: {lines[-1]}",
                "read the line above; --accel tcg rules out KVM, and the kernel must be an x86-64 bzImage")


def _panic(run: Run) -> Judgement:
    return _bad(f"the guest kernel panicked: {run.story.panic}",
                "read the kernel's last lines in the console file; 'Attempted to kill init': PID 1 itself died")


def _fatal(run: Run) -> Judgement:
    line = run.story.failure
    assert line is not None  # the rule's condition
    return _bad(f"{line.step}: {line.what}", line.hint, line.code)


def _repeated(run: Run) -> Judgement:
    return _bad(f"the guest gave {len(run.story.said)} verdicts where PID 1 gives one: one of them is forged",
                "PID 1 says READY or FATAL once, and once why it ends; see in the console file what else writes to the "
                "console or /dev/kmsg")


def _silent(run: Run) -> Judgement:
    return _bad(f"the console stayed empty for {run.seconds:.0f} s{run.host.note(run.seconds)}",
                "the kernel needs console=ttyS0 and a serial driver; --accel tcg rules out KVM")


def _garbage(run: Run) -> Judgement:
    return _bad(f"the console carries garbage: {run.story.strange_bytes} of {run.story.size_bytes} bytes are not text",
                "check that kernel and initrd are what they should be, and that nothing binary is printed to ttyS0")


def _stalled(run: Run) -> Judgement:
    done = run.story.steps[-1].line.name if run.story.steps else "none"
    return _bad(f"no verdict after {run.seconds:.0f} s ({run.ending.value}); last finished step: {done}"
                f"{run.host.note(run.seconds)}",
                "read the last console lines; --timeout gives it longer")


def _mute_end(run: Run) -> Judgement:
    return _bad(f"the machine ended after {run.seconds:.1f} s without a verdict",
                "PID 1 did not get to speak: check that the initrd has an executable /init for this kernel")


def _endless(run: Run) -> Judgement:
    return _bad(f"READY, but the machine still ran after {run.seconds:.0f} s{run.host.note(run.seconds)}",
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


# The first rule that applies decides.
_RULES = (
    _Rule(when=lambda run: bool(run.killed_by), say=_killed),
    _Rule(when=lambda run: run.story.size_bytes == 0 and run.ending is Ending.GUEST, say=_refused),
    _Rule(when=lambda run: bool(run.story.panic), say=_panic),
    _Rule(when=lambda run: is_forged(run.story.said), say=_repeated),
    _Rule(when=lambda run: run.story.failure is not None, say=_fatal),
    _Rule(when=lambda run: run.story.ready is not None and run.ending is Ending.STOPPED, say=_stopped),
    _Rule(when=lambda run: run.story.ready is not None and run.ending is Ending.GUEST, say=_ended),
    _Rule(when=lambda run: run.story.ready is not None, say=_endless),
    _Rule(when=lambda run: run.story.size_bytes == 0, say=_silent),
    _Rule(when=lambda run: run.story.is_garbage, say=_garbage),
    _Rule(when=lambda run: run.ending is Ending.GUEST, say=_mute_end),
    _Rule(when=lambda _run: True, say=_stalled),
)
