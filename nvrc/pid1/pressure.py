# SPDX-License-Identifier: Apache-2.0
"""Memory that runs short, told before the kernel kills: a trigger of pressure stalls, and the kernel's kills.

Follows Documentation/accounting/psi.rst. A kernel without it tells kills only. What is told is told at most once a
minute, so that a machine that thrashes does not spend its time on talking. Loaded once the machine is ready.
"""

from __future__ import annotations

import os

from guest_cdi.lean.light import TYPE_CHECKING, Callable
from nvrc.machine.journal import KERNEL, Line
from nvrc.vocabulary.digits import is_number
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble

if TYPE_CHECKING:
    from nvrc.machine.loop import Loop

PRESSURE = "/proc/pressure/memory"
# All tasks together waited for 300 ms within two seconds.
TRIGGER = b"full 300000 2000000"
PAUSE_S = 60.0
_KILLED = "Out of memory: Killed process "


class Memory:
    def __init__(self, loop: Loop, now: Callable[[], float], changed: Callable[[Trouble], None]) -> None:
        self._loop, self._now, self._changed = loop, now, changed
        self._next_s = {"pressure": 0.0, "kill": 0.0}

    def watch(self, path: str = PRESSURE) -> bool:
        """Whether the kernel tells of pressure."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(descriptor, TRIGGER + b"\0")
            self._loop.watch(descriptor, self.pressed, urgent=True)
        except OSError:
            os.close(descriptor)
            return False
        return True

    def pressed(self) -> None:
        if self._is_due("pressure"):
            self._tell("all tasks of the guest waited for memory; the kernel may kill a process next")

    def hear(self, line: Line) -> None:
        """The machine's own kills; those of a container's limit are the container's."""
        if line.uid != KERNEL or not line.text.startswith(_KILLED):
            return
        pid, _, rest = line.text.removeprefix(_KILLED).partition(" (")
        name, closed, _ = rest.partition(")")
        is_whole = closed and len(name) <= 64 and is_number(pid, 7)
        if is_whole and self._is_due("kill"):
            self._tell(f"the kernel killed {name!a} (pid {pid}), because the guest was out of memory")

    def _is_due(self, kind: str) -> bool:
        if self._now() < self._next_s[kind]:
            return False
        self._next_s[kind] = self._now() + PAUSE_S
        return True

    def _tell(self, what: str) -> None:
        self._changed(make_trouble("E_MEMORY", what, step=AFTER_THE_BOOT))
