# SPDX-License-Identifier: Apache-2.0
"""Tests in several sessions of pytest side by side, each with some of the files.

A test of the unit tier takes a few milliseconds. To hand it to a worker and to take back what it came to costs a
quarter of that, and each worker would first collect all of them. So files are dealt out beforehand, by the time that
each took when it was last run; one that was never run counts by its length.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

BYTES_A_SECOND = 50_000  # of a file of tests, roughly


def deal(seconds: Mapping[str, float], parts: int, together: Collection[str] = ()) -> tuple[tuple[str, ...], ...]:
    """The longest first, each to whom has least; what belongs together is one. Within a part files keep their order."""
    shares: list[list[str]] = [[] for _ in range(parts)]
    taken = [0.0] * parts
    pieces = [[name for name in seconds if name in together], *([name] for name in seconds if name not in together)]
    cost = {tuple(piece): sum(seconds[name] for name in piece) for piece in pieces if piece}
    for piece in sorted(cost, key=lambda piece: (-cost[piece], piece)):
        least = taken.index(min(taken))
        shares[least] += piece
        taken[least] += cost[piece]
    return tuple(tuple(name for name in seconds if name in share) for share in map(frozenset, shares) if share)


def naming(root: Path, names: Iterable[str], word: str) -> tuple[str, ...]:
    return tuple(name for name in names if word in (root / name).read_text(encoding="utf-8"))


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
