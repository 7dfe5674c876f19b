# SPDX-License-Identifier: Apache-2.0
"""How much of the host's time a machine really had, and whether its clock goes with the host's.

A deadline is about the machine: while it is ready to run and the host runs something else, its time stands still. The
kernel keeps account of that for every thread (Documentation/scheduler/sched-stats.rst); where it does not, time is the
wall clock's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# As the kernel writes it before a line of its log.
STAMP = re.compile(r"^(?:<[0-9]{1,3}>)?\[ *([0-9]{1,9}\.[0-9]{6})\]")
# The same where the kernel printed a record into the middle of a program's line.
STAMP_INSIDE = re.compile(r"\[ *[0-9]{1,9}\.[0-9]{6}\](?:\[ *[TC][0-9]+\])? ")
# Lines are heard late by what the host is busy with, so short times tell nothing.
SLACK_S, FACTOR = 5.0, 1.25
_WALL_FACTOR, _WALL_MORE_S = 10, 60.0
PROC = Path("/proc")


def wall_limit_s(limit_s: float) -> float:
    """The wall clock's end of a machine that may have `limit_s`: for one that the host does not let run at all."""
    return limit_s * _WALL_FACTOR + _WALL_MORE_S


def starved_s(pid: int, proc: Path = PROC) -> float:
    """Seconds that the process was ready to run and did not get to: those of its most unlucky thread."""
    waits = [0.0]
    for path in (proc / str(pid) / "task").glob("*/schedstat"):
        try:
            waits.append(int(path.read_text(encoding="ascii").split()[1]) / 1e9)
        except (OSError, ValueError, IndexError):
            continue  # the thread is gone, or the kernel keeps no such account
    return max(waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """How long the host let a machine wait for a processor, and how much it had to do."""

    starved_s: float = 0.0
    load: float = 0.0

    def note(self, seconds: float) -> str:
        """For whoever reads of a time-out; empty where the host is not to blame."""
        if self.starved_s < 0.1 * seconds:
            return ""
        return (f"; the host was busy: of {seconds:.0f} s the machine waited {self.starved_s:.0f} s for a processor, "
                f"load {self.load:.1f}")


def read_load() -> float:
    return os.getloadavg()[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Two clocks side by side, from the first stamped line to the last one: the guest's seconds and the host's."""

    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None

    def hear(self, line: str, host_s: float) -> Clocks:
        found = STAMP.match(line)
        if found is None:
            return self
        now = (float(found[1]), host_s)
        return Clocks(first=self.first or now, last=now)

    def passed(self) -> tuple[float, float]:
        """Between the first line and the last: the guest's seconds, and the host's."""
        if self.first is None or self.last is None:
            return 0.0, 0.0
        return self.last[0] - self.first[0], self.last[1] - self.first[1]

    def apart_s(self) -> float:
        guest_s, host_s = self.passed()
        return abs(guest_s - host_s)

    def problem(self) -> str:
        """Empty where they go alike, as far as lines that are heard late can tell."""
        guest_s, host_s = self.passed()
        if guest_s <= host_s * FACTOR + SLACK_S and host_s <= guest_s * FACTOR + SLACK_S:
            return ""
        return (f"the guest's clock does not go with the host's: {guest_s:.1f} s in the guest were {host_s:.1f} s on "
                "the host; times and deadlines of this machine mean nothing")
