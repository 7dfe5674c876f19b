# SPDX-License-Identifier: Apache-2.0
"""The event loop of PID 1: descriptors with a callback, timers with a callback, nothing else.

Single threaded. A callback must not block. `run` returns as soon as its condition holds.
"""

from __future__ import annotations

import select
from _heapq import heappop, heappush
from itertools import count

from guest_cdi.lean.light import Callable

Callback = Callable[[], None]
AGAIN_S = 1.0


class Loop:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Callback]] = []
        self._serial = count()

    def watch(self, descriptor: int, ready: Callback, *, writing: bool = False, urgent: bool = False) -> None:
        """Call `ready` whenever the descriptor can be read, or written to, or has news out of turn."""
        self._epoll.register(descriptor, select.EPOLLPRI if urgent else select.EPOLLOUT if writing else select.EPOLLIN)
        self._readers[descriptor] = ready

    def watch_in_turns(self, descriptor: int, serve: Callable[[], bool]) -> None:
        """Call `serve` whenever the descriptor can be read. Where it returns False it is called again in a second."""
        def ready() -> None:
            if not serve():
                self.unwatch(descriptor)
                self.at(self._now() + AGAIN_S, again)

        def again() -> None:
            try:
                if serve():
                    self.watch(descriptor, ready)
                    return
            except OSError:  # programs of root's have used up what root may watch
                pass
            self.at(self._now() + AGAIN_S, again)

        self.watch(descriptor, ready)

    def unwatch(self, descriptor: int) -> None:
        del self._readers[descriptor]
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
        for descriptor, _ in self._epoll.poll(self._wait_s()):
            if reader := self._readers.get(descriptor):
                reader()
        while self._timers and self._timers[0][0] <= self._now():
            heappop(self._timers)[2]()

    def _wait_s(self) -> float:
        return max(0.0, self._timers[0][0] - self._now()) if self._timers else -1

    def close(self) -> None:
        self._epoll.close()
