# SPDX-License-Identifier: Apache-2.0
"""How long a step waited for others, told apart from what it did itself."""

from __future__ import annotations

import _thread

from guest_cdi.lean.light import Callable


class Waits:
    """Seconds that each thread has spent waiting for the driver, for daemons, for NVIDIA's library."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._expected: dict[int, Callable[[], None]] = {}

    def expect(self, begun: Callable[[], None]) -> None:
        """Have `begun` called when this thread waits for the first time."""
        self._expected[_thread.get_ident()] = begun

    def begin(self) -> None:
        if begun := self._expected.pop(_thread.get_ident(), None):
            begun()

    def add(self, seconds: float) -> None:
        thread = _thread.get_ident()
        self._spent[thread] = self._spent.get(thread, 0.0) + seconds

    def take(self) -> float:
        """Those of this thread since it last asked."""
        return self._spent.pop(_thread.get_ident(), 0.0)
