# SPDX-License-Identifier: Apache-2.0
"""How long a step waited for others, told apart from what it did itself."""

from __future__ import annotations

import _thread


class Waits:
    """Seconds that each thread has spent waiting for the driver, for daemons, for NVIDIA's library."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}

    def add(self, seconds: float) -> None:
        thread = _thread.get_ident()
        self._spent[thread] = self._spent.get(thread, 0.0) + seconds

    def take(self) -> float:
        """Those of this thread since it last asked."""
        return self._spent.pop(_thread.get_ident(), 0.0)
