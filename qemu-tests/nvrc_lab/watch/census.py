# SPDX-License-Identifier: Apache-2.0
"""What PID 1 held again and again while its machine lived, and the agent beside the pod, as the prober counted it, and
whether that grew. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

_LINE = re.compile(r"\[ *(\d+\.\d+)\].* probe: census (.*)")
FEWEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """At a second of the guest's clock: KiB of memory, of that what is no file's, and numbers. `beside` is the agent
    beside the pod, where it runs; `beside_pss` is its part of the machine's memory and that of its own child.
    """

    at_s: float
    rss: int
    anon: int
    descriptors: int
    threads: int
    zombies: int
    processes: int
    beside_rss: int = 0
    beside_pss: int = 0
    beside_descriptors: int = 0


# By how much the middle of the last quarter may lie above that of the second. The first is a machine that still
# starts daemons again; processes are told only, since the kernel's own come and go. What is kept on purpose has a bound
# (512 lines of the log, 100 pieces of news, 64 statuses until free tuples are let go) and settles below 256 KiB; a leak
# goes on, so it is told with its size for a round: of 16 bytes for each log line, orphan and client that a round has,
# half an hour makes more than that.
MAY_GROW: Mapping[str, int] = {"rss": 512, "anon": 256, "descriptors": 0, "threads": 0, "zombies": 0, "beside_rss": 512,
                               "beside_pss": 768, "beside_descriptors": 4}
UNITS: Mapping[str, str] = {"rss": " KiB", "anon": " KiB", "beside_rss": " KiB", "beside_pss": " KiB"}
BESIDE = "beside_"


def read_censuses(lines: Iterable[str]) -> tuple[Census, ...]:
    found = (match for match in map(_LINE.search, lines) if match)
    return tuple(Census(at_s=float(match[1]), **{name: int(value) for name, value in (
        word.split("=") for word in match[2].split())}) for match in found)


def middles(censuses: Sequence[Census], name: str) -> tuple[float, float]:
    """Of the second and of the last quarter."""
    values, quarter = [asdict(one)[name] for one in censuses], len(censuses) // 4
    return median(values[quarter:2 * quarter]), median(values[-quarter:])


def find_growth(censuses: Sequence[Census]) -> tuple[str, ...]:
    """What is not flat, a sentence each."""
    if len(censuses) < FEWEST:
        return (f"{len(censuses)} counts of what PID 1 holds do not tell whether it grows; {FEWEST} or more do",)
    return tuple(
        f"{_name(name)} grew from {early:g} to {late:g}{UNITS.get(name, '')}, by more than {limit}: "
        f"{(late - early) / (len(censuses) / 2):.2g} a round"
        for name, limit in MAY_GROW.items() for early, late in [middles(censuses, name)] if late - early > limit)


def _name(name: str) -> str:
    return f"{name.removeprefix(BESIDE)} of {'the agent beside the pod' if name.startswith(BESIDE) else 'PID 1'}"


def render(censuses: Sequence[Census]) -> tuple[str, ...]:
    """A table: the second quarter, the last one, the most."""
    if len(censuses) < FEWEST:
        return ()
    rows = [(name, *middles(censuses, name), max(asdict(one)[name] for one in censuses))
            for name in (*MAY_GROW, "processes")]
    return (f"{'':<18} {'early':>8} {'late':>8} {'most':>8}",
            *(f"{name:<18} {early:>8g} {late:>8g} {most:>8g}{UNITS.get(name, '')}" for name, early, late, most in rows))
