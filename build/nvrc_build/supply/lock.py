# SPDX-License-Identifier: Apache-2.0
"""Lock files: version, size and sha256 of every package, a line each, so that a reviewer can read a change.

Names no host: where a package comes from is the machine's business, what it contains is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.declared.toml import Findings, read_toml
from nvrc_build.supply.apt import Package

_HEAD = "# Written by `nvrc-image lock`. One package per line; what an image or a root is made of changes only here.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    packages: tuple[Package, ...]


def read_lock(path: Path) -> tuple[Package, ...]:
    findings = Findings()
    lock = read_toml(Lock, path, findings, f"{path.parent.name}/{path.name}")
    findings.raise_if_any(f"lock {path.name}")
    return tuple(sorted(lock.packages)) if lock is not None else ()


def write_lock(packages: Sequence[Package]) -> str:
    rows = [f'    {{ name = "{row.name}", version = "{row.version}", arch = "{row.arch}", size = {row.size}, '
            f'sha256 = "{row.sha256}" }},\n' for row in sorted(packages)]
    return f"{_HEAD}packages = [\n{''.join(rows)}]\n"


def compare(old: Sequence[Package], new: Sequence[Package]) -> tuple[str, ...]:
    """What changed between two locks, one line per package."""
    before, after = ({row.name: row for row in rows} for rows in (old, new))
    lines = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if was is None and now is not None:
            lines.append(f"{name}: new, {now.version}")
        elif now is None and was is not None:
            lines.append(f"{name}: gone, was {was.version}")
        elif was is not None and now is not None:
            lines.append(f"{name}: {was.version} -> {now.version}" if was.version != now.version
                         else f"{name}: {was.version} with other content")
    return tuple(lines)
