# SPDX-License-Identifier: Apache-2.0
"""Figures of one boot, from what its console told; and many of them as median and spread. Pure.

Every moment is of the kernel's boot clock, told by the lab's own programs before and behind the init, so that inits are
measured alike. What a step took is known only of an init that reports.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nvrc.boot import BOOT
from nvrc.report.critical_path import own_seconds
from nvrc.report.report import Report
from nvrc_lab.watch.outcome import Told

TICKS_PER_S = 100
_CLOCK = re.compile(r"(labinit|agent|container): clock start=(\d+)(?: exec=(\d+))?")
_BEFORE = re.compile(r"labinit: clock .* cpu=(\d+)")
_STAT = re.compile(r"probe: cat /proc/1/stat: \d+ \(.*\) (.*)")
# The prober's grep tells its lines as cat does.
_RESIDENT = re.compile(r"probe: cat /proc/1/status: (VmRSS|RssAnon):\s*(\d+) kB")
_RESIDENT_NAMES = {"VmRSS": "pid1_rss", "RssAnon": "pid1_anon"}
# Fields of /proc/PID/stat behind the name: state is 3, so utime (14) is the twelfth of them.
_UTIME = 14 - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of an even number of runs the median is the mean of the middle two."""

    median: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.low:.1f}–{self.high:.1f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the bench measured of one scenario with one init."""

    scenario: str
    init: str
    figures: Mapping[str, Spread]
    steps: Mapping[str, Spread]
    failed: tuple[str, ...]


# In the order in which they are shown, with their unit.
MEASURES: Mapping[str, str] = {
    "kernel": "ms", "init_to_agent": "ms", "agent_to_container": "ms", "total": "ms", "own": "ms",
    "pid1_cpu": "ms", "children_cpu": "ms", "pid1_rss": "KiB", "pid1_anon": "KiB",
}
ABOUT: Mapping[str, str] = {
    "kernel": "kernel entry to the first program, virtual hardware loaded",
    "init_to_agent": "exec of the init to exec of the agent",
    "agent_to_container": "exec of the agent to the container's first line",
    "total": "kernel entry to the agent, or to the container where there is one",
    "own": "of init_to_agent, the init's own work on its longest chain of steps: without the interpreter's start, and "
           "without what each step says that it waited for driver, daemons and NVIDIA's library",
    "pid1_cpu": "processor time of PID 1 from the exec of the init until the agent runs",
    "children_cpu": "the same of its ended children",
    "pid1_rss": "resident memory of PID 1 when the agent begins (VmRSS), its pages of files in the root included",
    "pid1_anon": "of that what is its own (RssAnon), before it gives back what only the boot needed",
}


def measure(told: Told) -> dict[str, float]:
    """What this run gave; a measure that it did not give is absent."""
    clocks = {found[1]: (int(found[2]), int(found[3] or 0)) for found in map(_CLOCK.search, told.lines) if found}
    figures = _moments(clocks)
    if told.report is not None:
        own_s = own_seconds(told.report, {step.name: step.needs for step in BOOT})
        if own_s is not None:
            figures["own"] = own_s * 1000
    text = "\n".join(told.lines)
    if found := _STAT.search(text):
        fields = found[1].split()
        own, children = fields[_UTIME:_UTIME + 2], fields[_UTIME + 2:_UTIME + 4]
        before = _BEFORE.search(text)
        kernel_ms = int(before[1]) / 1000 if before else 0.0
        figures["pid1_cpu"] = max(0.0, sum(map(int, own)) * 1000 / TICKS_PER_S - kernel_ms)
        figures["children_cpu"] = sum(map(int, children)) * 1000 / TICKS_PER_S
    figures |= {_RESIDENT_NAMES[found[1]]: float(found[2]) for found in _RESIDENT.finditer(text)}
    return figures


def _moments(clocks: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    if "labinit" not in clocks or "agent" not in clocks:
        return figures
    handed, agent = clocks["labinit"][1] / 1000, clocks["agent"][0] / 1000
    figures |= {"kernel": handed, "init_to_agent": agent - handed, "total": agent}
    if "container" in clocks:
        container = clocks["container"][0] / 1000
        figures |= {"agent_to_container": container - agent, "total": container}
    return figures


def measure_steps(report: Report) -> dict[str, float]:
    """Milliseconds of each step that ran."""
    return {step.name: (step.end_s - step.start_s) * 1000 for step in report.steps
            if step.start_s is not None and step.end_s is not None}


def summarise(values: Sequence[float]) -> Spread:
    return Spread(median=statistics.median(values), low=min(values), high=max(values), runs=len(values))


def gather_figures(runs: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    """By name, over all runs that gave it, in the order of the first run that did."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.items():
            values.setdefault(name, []).append(value)
    return {name: summarise(row) for name, row in values.items()}
