# SPDX-License-Identifier: Apache-2.0
"""What changed between two images: packages, files, and what that weighs, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass

from nvrc.vocabulary.terminal import UNLIMITED, flow, lay_table
from nvrc_build.papers.inventory import File, Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    path: str
    what: str
    bytes_more: int
    slice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    parts: tuple[str, ...]
    packages: tuple[str, ...]
    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.parts or self.packages or self.changes)

    def by_slice(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for change in self.changes:
            totals[change.slice] = totals.get(change.slice, 0) + change.bytes_more
        return dict(sorted(totals.items()))


def compare(old: Inventory, new: Inventory) -> Difference:
    changes = tuple(change for path in sorted(old.files.keys() | new.files.keys())
                    for change in _compare_file(path, old.files.get(path), new.files.get(path)))
    return Difference(
        parts=tuple(name for name in sorted(old.parts.keys() | new.parts.keys())
                    if old.parts.get(name) != new.parts.get(name)),
        packages=tuple(_package(name, old.packages.get(name), new.packages.get(name))
                       for name in sorted(old.packages.keys() | new.packages.keys())
                       if old.packages.get(name) != new.packages.get(name)),
        changes=changes,
    )


def _package(name: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"{name}: new, {new}"
    return f"{name}: gone, was {old}" if new is None else f"{name}: {old} -> {new}"


def _compare_file(path: str, old: File | None, new: File | None) -> tuple[Change, ...]:
    if new is None:
        gone = old.size if old is not None else 0
        return (Change(path=path, what="removed", bytes_more=-gone, slice=old.slice if old is not None else ""),)
    if old is None:
        return (Change(path=path, what="added", bytes_more=new.size, slice=new.slice),)
    words = [f"{name} {before} -> {after}" for name, before, after in (
        ("kind", old.kind, new.kind), ("mode", old.mode, new.mode), ("target", old.target, new.target),
        ("slice", old.slice, new.slice)) if before != after]
    words += ["content"] if old.sha256 != new.sha256 else []
    if not words:
        return ()
    return (Change(path=path, what=", ".join(words), bytes_more=new.size - old.size, slice=new.slice),)


def render(found: Difference, width: int = UNLIMITED) -> str:
    """For people: parts and packages, files with what they weigh more or less, then the sum by slice and in all."""
    if not found:
        return "no difference\n"
    lines = [f"parts that differ: {', '.join(found.parts)}"] if found.parts else []
    lines += [f"package {line}" for line in found.packages]
    rows = [(f"{change.bytes_more:+14,}", f"{change.path}  {change.what}") for change in found.changes]
    sums = sorted(found.by_slice().items(), key=lambda item: (-abs(item[1]), item[0]))
    rows += [(f"{size:+14,}", f"in slice {name}") for name, size in sums if size]
    total = sum(change.bytes_more for change in found.changes)
    rows += [(f"{total:+14,}", f"bytes unpacked, {len(found.changes)} entries")] if found.changes else []
    table = "".join(f"{line}\n" for line in lay_table(rows, width)) if rows else ""
    return flow("".join(f"{line}\n" for line in lines), width) + table
