# SPDX-License-Identifier: Apache-2.0
"""Slices and a pool of files into a tree: what was declared, then what its programs need, then every check.

Nothing enters the tree that a slice did not name, but for the libraries that its ELF files are linked to; those carry
the slice that needed them first. All findings are reported together.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvrc_build import elf
from nvrc_build.errors import BuildError
from nvrc_build.filelist import select_names
from nvrc_build.manifest import Slice
from nvrc_build.pool import Item, Pool
from nvrc_build.tree import Entry, Kind, Origin, Tree, clean_path

# Filled at run time: a link or a configuration may point there although the image has nothing.
RUNTIME_FOLDERS = ("/dev", "/proc", "/run", "/sys", "/tmp")


def assemble(slices: Sequence[Slice], pool: Pool, files: Path) -> Tree:
    tree = Tree()
    findings: list[str] = []
    for row in slices:
        _declare(row, tree, files)
        _take(row, tree, pool, findings)
    _close_libraries(tree, pool, findings)
    findings += tree.conflicts
    findings += dangling_links(tree)
    findings += missing_expectations(slices, tree)
    if findings:
        raise BuildError(f"the image cannot be assembled: {len(findings)} findings", findings=tuple(findings))
    return tree


def _declare(row: Slice, tree: Tree, files: Path) -> None:
    origin = Origin(slice=row.name)
    for folder in row.folders:
        tree.add_folder(folder.path, origin, folder.mode)
    for link in row.links:
        tree.add_link(link.path, link.target, origin)
    for text in row.texts:
        content = text.content.encode() if not text.source else (files / text.source).read_bytes()
        tree.add_file(text.path, content, origin, text.mode)
    if row.console:
        tree.add_console("/dev/console", origin)


def _take(row: Slice, tree: Tree, pool: Pool, findings: list[str]) -> None:
    for take in row.takes:
        if take.package not in pool.packages:
            findings.append(f"slice {row.name!r}: package {take.package} is not among the image's packages")
            continue
        found: dict[str, Item] = {}
        for pattern in take.paths:
            hits = pool.match(take.package, pattern)
            if not hits:
                findings.append(f"slice {row.name!r}: {take.package} has nothing at {pattern}")
            found.update((item.path, item) for item in hits)
        if take.count and len(found) != take.count:
            findings.append(f"slice {row.name!r}: {take.package}: {len(found)} files match, {take.count} must")
        for item in found.values():
            _add_item(tree, item, row.name, into=take.into)
    for filelist in row.filelists:
        for item in select_names(filelist, pool, row.name, findings):
            _add_item(tree, item, row.name)


def _add_item(tree: Tree, item: Item, slice_name: str, into: str = "") -> None:
    path = posixpath.join(into, posixpath.basename(item.path)) if into else item.path
    origin = Origin(slice=slice_name, package=item.package)
    if item.is_link:
        tree.add_link(path, str(item.file.readlink()), origin)
    else:
        mode = stat.S_IMODE(item.file.stat().st_mode)
        tree.add_file(path, item.file, origin, 0o755 if mode & 0o111 and not mode & 0o7000 else mode)


def _close_libraries(tree: Tree, pool: Pool, findings: list[str]) -> None:
    waiting = [entry for entry in tree if entry.kind is Kind.FILE]
    while waiting:
        entry = waiting.pop()
        needs = elf.read_needs(entry.read(), entry.path)
        if needs is None:
            continue
        folders = (*needs.run_path, *elf.LIBRARY_FOLDERS)
        wanted = [tuple(posixpath.join(folder, name) for folder in folders) for name in needs.libraries]
        wanted += [(needs.interpreter,)] if needs.interpreter else []
        for candidates in wanted:
            waiting += _provide(candidates, entry, tree, pool, findings)


def _provide(candidates: Sequence[str], entry: Entry, tree: Tree, pool: Pool, findings: list[str]) -> list[Entry]:
    """Make sure that one of the candidate paths exists; returns what had to be added."""
    paths = [follow(tree, posixpath.normpath(path)) for path in candidates]
    if any(tree.get(path) is not None for path in paths):
        return []
    item = next((found for found in map(pool.find, paths) if found is not None), None)
    if item is None:
        findings.append(f"slice {entry.origin.slice!r}: {entry.path} needs {posixpath.basename(candidates[0])}, "
                        "which no package of the image has")
        return []
    added: list[Entry] = []
    while item is not None:
        _add_item(tree, item, entry.origin.slice)
        new = tree.get(item.path)
        added += [new] if new is not None and new.kind is Kind.FILE else []
        target = posixpath.normpath(posixpath.join(posixpath.dirname(item.path), str(item.file.readlink()))) \
            if item.is_link else ""
        item = pool.find(follow(tree, target)) if target and tree.get(target) is None else None
    return added


def follow(tree: Tree, path: str, depth: int = 0) -> str:
    """The path with every link in it followed as far as the tree knows, the last component included."""
    if depth > 40:
        return path
    done = "/"
    parts = [part for part in path.split("/") if part]
    for number, part in enumerate(parts):
        here = posixpath.join(done, part)
        entry = tree.get(here)
        if entry is not None and entry.kind is Kind.LINK:
            rest = posixpath.join(done, entry.target, *parts[number + 1:])
            return follow(tree, posixpath.normpath(rest), depth + 1)
        done = here
    return done


def _is_runtime(path: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in RUNTIME_FOLDERS)


def dangling_links(tree: Tree) -> list[str]:
    found = []
    for entry in tree:
        if entry.kind is Kind.LINK:
            target = follow(tree, entry.path)
            if tree.get(target) is None and not _is_runtime(target):
                found.append(f"slice {entry.origin.slice!r}: link {entry.path} points to {target}, "
                             "which is not in the image")
    return found


def missing_expectations(slices: Sequence[Slice], tree: Tree) -> list[str]:
    return [f"slice {row.name!r}: {path} must exist and does not"
            for row in slices for path in row.expects
            if tree.get(follow(tree, clean_path(path))) is None and not _is_runtime(path)]


def weigh(tree: Tree) -> Mapping[str, tuple[int, int]]:
    """Files and bytes by slice."""
    totals: dict[str, tuple[int, int]] = {}
    for entry in tree:
        if entry.kind is Kind.FILE:
            count, size = totals.get(entry.origin.slice, (0, 0))
            totals[entry.origin.slice] = (count + 1, size + entry.size)
    return totals
