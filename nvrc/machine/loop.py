# SPDX-License-Identifier: Apache-2.0
"""The event loop of PID 1: descriptors with a callback, timers with a callback, nothing else.

Single threaded. A callback must not block. `run` returns as soon as its condition holds. Programs that are root in name
use up what the kernel lets root watch by epoll(7): what comes then waits in poll(2), which has no such limit.
"""

from __future__ import annotations

import _thread
import select
from _heapq import heappop, heappush
from errno import ENOSPC
from itertools import count

from guest_cdi.lean.light import Callable

Callback = Callable[[], None]
AGAIN_S = 1.0


class Loop:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._epoll = select.epoll()
        self._thread = _thread.get_ident()
        self._readers: dict[int, Callback] = {}
        self._beside: dict[int, int] = {}  # descriptors that epoll had no room for
        self._timers: list[tuple[float, int, Callback]] = []
        self._serial = count()

    def watch(self, descriptor: int, ready: Callback, *, writing: bool = False, urgent: bool = False) -> None:
        """Call `ready` whenever the descriptor can be read, or written to, or has news out of turn."""
        events = select.EPOLLPRI if urgent else select.EPOLLOUT if writing else select.EPOLLIN
        try:
            self._register(descriptor, events)
        except OSError as err:
            if err.errno != ENOSPC or _thread.get_ident() != self._thread:  # one that waits is not told of it
                raise
            self._beside[descriptor] = events  # the numbers are those of poll(2)
        self._readers[descriptor] = ready

    def _register(self, descriptor: int, events: int) -> None:
        self._epoll.register(descriptor, events)

    def watch_in_turns(self, descriptor: int, serve: Callable[[], bool]) -> None:
        """Call `serve` whenever the descriptor can be read. Where it returns False it is called again in a second."""
        def ready() -> None:
            if not serve():
                self.unwatch(descriptor)
                self.at(self._now() + AGAIN_S, again)

        def again() -> None:
            if serve():
                self.watch(descriptor, ready)
            else:
                self.at(self._now() + AGAIN_S, again)

        self.watch(descriptor, ready)

    def unwatch(self, descriptor: int) -> None:
        del self._readers[descriptor]
        if self._beside.pop(descriptor, None) is None:
            self._epoll.unregister(descriptor)

    def at(self, moment: float, expired: Callback) -> None:
        """Call `expired` once, at that moment or soon after. A timer that no longer matters checks so itself."""
        heappush(self._timers, (moment, next(self._serial), expired))

    def run(self, done: Callable[[], bool]) -> None:
        """Serve events until the condition holds; it is asked after every round."""
        while not done():
            self.serve()

    def turn(self) -> None:
        """Serve what is ready now, without waiting."""
        self.at(self._now(), lambda: None)
        self.serve()

    def serve(self) -> None:
        """Wait until there is something to do, and do it."""
        for descriptor in self._ready():
            if reader := self._readers.get(descriptor):
                reader()
        while self._timers and self._timers[0][0] <= self._now():
            heappop(self._timers)[2]()

    def _ready(self) -> list[int]:
        wait_s = self._wait_s()
        if not self._beside:
            return [descriptor for descriptor, _ in self._epoll.poll(wait_s)]
        waiting = select.poll()
        for descriptor, events in (*self._beside.items(), (self._epoll.fileno(), select.POLLIN)):
            waiting.register(descriptor, events)
        found = [descriptor for descriptor, _ in waiting.poll(None if wait_s < 0 else wait_s * 1000)]
        return [one for one in found if one in self._beside] + [one for one, _ in self._epoll.poll(0)]

    def _wait_s(self) -> float:
        return max(0.0, self._timers[0][0] - self._now()) if self._timers else -1

    def close(self) -> None:
        self._epoll.close()
