# SPDX-License-Identifier: Apache-2.0
"""Tests in several sessions of pytest side by side, each with some of the files.

A test of the unit tier takes a few milliseconds. To hand it to a worker and to take back what it came to costs a
quarter of that, and each worker would first collect all of them. So files are dealt out beforehand, by the time that
each took when it was last run; one that was never run counts by its length.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

BYTES_A_SECOND = 50_000  # of a file of tests, roughly


def deal(seconds: Mapping[str, float], parts: int) -> tuple[tuple[str, ...], ...]:
    """The longest first, each to whom has least. Within a part files keep their order."""
    shares: list[list[str]] = [[] for _ in range(parts)]
    taken = [0.0] * parts
    for name in sorted(seconds, key=lambda name: (-seconds[name], name)):
        least = taken.index(min(taken))
        shares[least].append(name)
        taken[least] += seconds[name]
    return tuple(tuple(name for name in seconds if name in share) for share in map(frozenset, shares) if share)


def weigh(root: Path, names: Sequence[str], times: Path) -> Mapping[str, float]:
    try:
        found: object = json.loads(times.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    rows = found.items() if isinstance(found, dict) else ()
    known = {name: taken for name, taken in rows if isinstance(taken, float)}
    return {name: known[name] if name in known else (root / name).stat().st_size / BYTES_A_SECOND for name in names}


def remember(reports: Iterable[Path], times: Path) -> None:
    """What each file took, by the reports of pytest, which name it as a module."""
    found: dict[str, float] = {}
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}.py"
            found[name] = found.get(name, 0.0) + float(case.get("time", "0"))
    times.parent.mkdir(parents=True, exist_ok=True)
    times.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
