# SPDX-License-Identifier: Apache-2.0
"""A host's stream taken apart by sandbox, and what happened to each. Bounded in memory, whatever is in the stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from nvrc.hostlogs.events import HostSign, find_sign
from nvrc.hostlogs.unwrap import Said, Speaker, is_of_a_container, read_agent, unwrap
from nvrc.report.diagnosis import NOTHING_SAID, Diagnosis, State, diagnose_story, failed, with_evidence
from nvrc.report.evidence import LINE_LIMIT
from nvrc.report.story import ConsoleStory
from nvrc.vocabulary.transcript import read_cut, read_refusal
from nvrc.vocabulary.trouble import Trouble

MOST_SANDBOXES = 200
NO_CONSOLE = ("the host's log has no line of this VM's console: it gets there only with enable_debug = true in both "
              "[hypervisor.qemu] and [runtime] of the class")
NO_EVENT = ("no event reports a failure that doctor knows; events are kept for an hour, and a VM that hangs has none "
            "before the runtime gives up")
QUOTED = "a container can write this message itself: compare it with the console of the VM"
TOO_MANY = "{0} lines of other VMs were not read: {1} at once is the most; name one with --sandbox, or shorten the log"
_BLANKS = re.compile(r"\s+")


@dataclass(slots=True)
class Sandbox:
    console: ConsoleStory = field(default_factory=ConsoleStory)
    farewell: Trouble | None = None
    is_quoted: bool = False  # the farewell
    sign: HostSign | None = None
    sign_line: str = ""
    is_wrapped: bool = False
    is_events: bool = False

    @property
    def is_known(self) -> bool:
        return bool(self.farewell or self.sign or self.is_wrapped or self.is_events or self.console.is_ours
                    or self.console.has_kernel)

    def hear(self, said: Said) -> None:
        if said.speaker is Speaker.AGENT:
            self._hear_agent(said)
            return
        if said.speaker is not Speaker.PLAIN:
            self.is_wrapped = True
        if not is_of_a_container(said.text):
            self._hear_guest(said.text)
        if said.speaker is not Speaker.CONSOLE:
            self._hear_host(said.text)

    def _hear_agent(self, said: Said) -> None:
        self.is_wrapped = True
        if said.is_error:
            self.console.hear_agent(said.text)

    def _hear_guest(self, text: str) -> None:
        if (farewell := read_cut(text)) is not None:
            self.farewell, self.is_quoted = farewell, False
        agents = read_agent(text)
        if agents is not None:
            self._hear_agent(agents)
        else:
            self.console.hear(text)

    def _hear_host(self, text: str) -> None:
        # The last verdict: each try of the pod is a VM of its own, and events name no sandbox.
        if (farewell := read_refusal(text)) is not None:
            self.farewell, self.is_quoted = farewell, is_of_a_container(text)
        if (found := find_sign(text)) is not None:
            self.sign, self.sign_line = found, _shorten(text)
        self.is_events = self.is_events or text.startswith("Events:")

    def diagnose(self, name: str) -> Diagnosis:
        found = diagnose_story(self.console)
        if found.state is State.UNFINISHED and self.farewell:
            told = replace(failed(self.farewell), mode=found.mode, finished_steps=found.finished_steps,
                           warnings=(*found.warnings, *([QUOTED] if self.is_quoted else [])),
                           more_warnings=found.more_warnings)
            found = with_evidence(told, self.console)
        elif found.state in (State.UNFINISHED, State.READY) and self.sign:
            found = _by_sign(found, self.sign, self.sign_line)
        elif found.summary == NOTHING_SAID and not self.console.has_kernel:
            missing = NO_EVENT if self.is_events else NO_CONSOLE if self.is_wrapped else NOTHING_SAID
            found = replace(found, summary=missing)
        return replace(found, sandbox=name)


def _by_sign(found: Diagnosis, sign: HostSign, line: str) -> Diagnosis:
    """The host's word for a VM that has given no verdict. What its console shows explains more than a time-out."""
    where = found.summary if found.finished_steps else ""
    if found.evidence:
        return replace(found, state=State.FAILED, summary=sign.cause, evidence=(line, *found.evidence))
    return replace(found, state=State.FAILED, summary=f"{sign.cause}; {where}" if where else sign.cause,
                   cause=sign.cause, remedy=sign.remedy, who=sign.who, evidence=(line,))


def _shorten(line: str) -> str:
    """What failed stands at the end of a runtime's error."""
    text = _BLANKS.sub(" ", line.strip())
    return text if len(text) <= LINE_LIMIT else f"...{text[-LINE_LIMIT:]}"


def _merge(found: Iterable[Diagnosis]) -> Iterator[Diagnosis]:
    """Tries of one pod that ended alike are one finding: each is a VM of its own."""
    alike: dict[Diagnosis, list[Diagnosis]] = {}
    for one in found:
        alike.setdefault(replace(one, sandbox="", evidence=()), []).append(one)
    for first, *others in alike.values():
        yield replace(first, alike=tuple(other.sandbox for other in others if other.sandbox))


class Collector:
    def __init__(self, only: str = "") -> None:
        self._only = only
        self._sandboxes: dict[str, Sandbox] = {}
        self._passed_by: dict[str, None] = {}
        self.left_out = 0  # lines of sandboxes beyond the most that are kept

    def hear(self, line: str) -> None:
        said = unwrap(line)
        if self._only and not said.sandbox.startswith(self._only):
            if len(self._passed_by) < MOST_SANDBOXES:
                self._passed_by[said.sandbox] = None
            return
        sandbox = self._sandboxes.get(said.sandbox)
        if sandbox is None:
            if len(self._sandboxes) >= MOST_SANDBOXES:
                self.left_out += 1
                return
            sandbox = self._sandboxes[said.sandbox] = Sandbox()
        sandbox.hear(said)

    @property
    def names(self) -> tuple[str, ...]:
        """Of sandboxes that were heard of, those passed by included."""
        return tuple(name for name in (*self._sandboxes, *self._passed_by) if name)

    def diagnose(self) -> tuple[Diagnosis, ...]:
        """One for each sandbox, in order of appearance; what was left out is no good end. Lines that name none count
        only if they tell something.
        """
        missing = Diagnosis(state=State.UNFINISHED, summary=TOO_MANY.format(self.left_out, MOST_SANDBOXES))
        return (*self._diagnose(), *([missing] if self.left_out else []))

    def _diagnose(self) -> tuple[Diagnosis, ...]:
        named = tuple(_merge(sandbox.diagnose(name) for name, sandbox in self._sandboxes.items()
                             if name and sandbox.is_known))
        rest = self._sandboxes.get("")
        if rest is None or not rest.is_known or (named and not _tells(rest)):
            return named
        found = rest.diagnose("")
        is_told = found.failure is not None and any(_is_same(found.failure, one.failure) for one in named)
        return named if is_told else (*named, found)


def _is_same(failure: Trouble, other: Trouble | None) -> bool:
    """An error without the sandbox's id, as of CRI-O, beside the log of that sandbox."""
    return other is not None and (failure.code, failure.step) == (other.code, other.step)


def _tells(sandbox: Sandbox) -> bool:
    return bool(sandbox.farewell or sandbox.sign or sandbox.console.is_ours)


def collect(lines: Iterable[str], only: str = "") -> Collector:
    collector = Collector(only)
    for line in lines:
        collector.hear(line)
    return collector
