# SPDX-License-Identifier: Apache-2.0
"""How a step waits: for children to end and for log lines, with a deadline that starts anew with every progress.

The event loop's thread puts in what happens, the step's thread takes it out; nobody polls. What counts as progress
only the step knows, so it says so itself.
"""

from __future__ import annotations

import os
from _queue import SimpleQueue

from guest_cdi.lean.light import TYPE_CHECKING, Iterator, NamedTuple, Self, TypeVar
from nvrc.machine.system import Kernel
from nvrc.vocabulary.signals import signal, signal_name

if TYPE_CHECKING:
    from nvrc.machine.journal import Journal, Line

T = TypeVar("T")

WAITING_BYTES = 8 << 20  # of lines that were heard and not yet taken, each with what it costs besides its text
LINE_COSTS = 256


class ChildEnded(NamedTuple):
    """A child was reaped; `status` is a wait status."""

    pid: int
    status: int

    @property
    def is_success(self) -> bool:
        return self.status == 0

    @property
    def is_killed(self) -> bool:
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL

    def text(self) -> str:
        """`exited with status 3` or `was killed by SIGSEGV`."""
        if not os.WIFSIGNALED(self.status):
            return f"exited with status {os.waitstatus_to_exitcode(self.status)}"
        return f"was killed by {signal_name(os.WTERMSIG(self.status))}"


class OverdueError(Exception):
    """Nothing that counts as progress came for as long as was allowed."""

    def __init__(self, waited_s: float, silent_s: float) -> None:
        super().__init__(f"no progress for {silent_s:.1f} s")
        self.waited_s = waited_s
        self.silent_s = silent_s


class Events:
    """What happens while a step waits; `patience_s` is how long it may go without progress.

    `with Events(system, patience_s, journal) as events:` hears every line inside the block, so a block that starts
    its daemon inside misses nothing. `system.start(program, ended=events.ended)` adds the end of a child.
    """

    def __init__(self, system: Kernel, patience_s: float, journal: Journal | None = None) -> None:
        self._system = system
        self._queue: SimpleQueue[ChildEnded | Line] = SimpleQueue()
        self._patience_s = patience_s
        self._journal = journal
        self._late = -1
        self._came = self._gone = 0  # bytes; each is written by one thread only
        self.started_s = self.progressed_s = system.now()

    # Called by the thread of the event loop

    def ended(self, pid: int, status: int) -> None:
        self._queue.put(ChildEnded(pid, status))

    def heard(self, line: Line) -> None:
        """A flood that comes faster than it is read costs some of itself and no more memory."""
        if self._came - self._gone < WAITING_BYTES:
            self._came += _cost(line)
            self._queue.put(line)

    # Called by the thread of the step

    def __enter__(self) -> Self:
        if self._journal is not None:
            self._journal.listen(self.heard)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._journal is not None:
            self._journal.unlisten(self.heard)

    def take(self) -> ChildEnded | Line:
        """The next event, or OverdueError. What came before the deadline is given out even when it is taken later."""
        left_s = self.progressed_s + self._patience_s - self._system.now()
        if left_s <= 0:
            self._late = self._queue.qsize() if self._late < 0 else self._late - 1
        event = None if self._late == 0 else self._wait(max(0.0, left_s))
        if event is None:
            raise OverdueError(self.waited_s, self.silent_s)
        return event

    def within(self, limit_s: float) -> Iterator[ChildEnded | Line]:
        """What still comes within that time: the last words of a daemon whose end is known already."""
        until_s = self._system.now() + limit_s
        while (left_s := until_s - self._system.now()) > 0:
            event = self._wait(left_s)
            if event is not None:
                yield event

    def until_silent(self, silence_s: float) -> Iterator[ChildEnded | Line]:
        """What still comes until nothing has for so long; a flood may take its time, up to the patience.

        A machine that stands still for longer than that, as one does whose host is busy, finds its time over before
        the event loop could read a line. So silence is two waits: between them others have had their turn.
        """
        until_s = self._system.now() + self._patience_s
        waits_left = 2
        while self._system.now() < until_s and waits_left:
            event = self._wait(silence_s / 2)
            waits_left = waits_left - 1 if event is None else 2
            if event is not None:
                yield event

    def _wait(self, limit_s: float) -> ChildEnded | Line | None:
        event = self._system.wait(self._queue, limit_s)
        if event is not None and not isinstance(event, ChildEnded):
            self._gone += _cost(event)
        return event

    def progress(self) -> None:
        """Something got further: the deadline starts anew."""
        self.progressed_s = self._system.now()
        self._late = -1

    @property
    def waited_s(self) -> float:
        return self._system.now() - self.started_s

    @property
    def silent_s(self) -> float:
        """Time since the last progress."""
        return self._system.now() - self.progressed_s


def _cost(line: Line) -> int:
    return len(line.text) + LINE_COSTS
