# SPDX-License-Identifier: Apache-2.0
"""Slices and a pool of files into a tree: what was declared, then what its programs need, then every check.

Nothing enters the tree that a slice did not name, but for the libraries that its ELF files are linked to; those carry
the slice that needed them first. All findings are reported together.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.declared.declared import Slice
from nvrc_build.ground.errors import BuildError
from nvrc_build.tree import elf
from nvrc_build.tree.accounts import add_accounts
from nvrc_build.tree.filelist import select_names
from nvrc_build.tree.pool import Item, Pool
from nvrc_build.tree.tree import Entry, Kind, Origin, Tree

# Filled at run time: a link or a configuration may point there although the image has nothing.
RUNTIME_FOLDERS = ("/dev", "/proc", "/run", "/sys", "/tmp")


def select_tree(slices: Sequence[Slice], pool: Pool, files: Path) -> tuple[Tree, list[str]]:
    """What the slices declare and take, and what of it could not be found."""
    tree = Tree()
    findings: list[str] = []
    for row in slices:
        _declare(row, tree, files)
        _take(row, tree, pool, findings)
    add_accounts(slices, tree, findings)
    return tree, findings


def _declare(row: Slice, tree: Tree, files: Path) -> None:
    origin = Origin(slice=row.name)
    for folder in row.folders:
        tree.add_folder(folder.path, origin, folder.mode)
    for link in row.links:
        tree.add_link(link.path, link.target, origin)
    for text in row.texts:
        content = (files / text.source).read_bytes() if text.source else (text.content or "").encode()
        tree.add_file(text.path, content, origin, text.mode)
    if row.console:
        tree.add_console("/dev/console", origin)


def _take(row: Slice, tree: Tree, pool: Pool, findings: list[str]) -> None:
    for take in row.takes:
        if take.package not in pool.packages:
            findings.append(f"slice {row.name!r}: package {take.package} is not among the image's packages; "
                            "run: nvrc-image lock")
            continue
        found: dict[str, Item] = {}
        for pattern in take.paths:
            hits = pool.match(take.package, pattern)
            if not hits and not take.count:
                findings.append(f"slice {row.name!r}: {take.package} has nothing at {pattern}")
            found.update((item.path, item) for item in hits)
        if take.count and len(found) != take.count:
            findings.append(f"slice {row.name!r}: {take.package}: {len(found)} files match, {take.count} must")
        if take.bundle:
            joined = b"".join(found[path].file.read_bytes().rstrip(b"\n") + b"\n" for path in sorted(found))
            tree.add_file(take.bundle, joined, Origin(slice=row.name, package=take.package))
            continue
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
        tree.add_file(path, item.file, origin, _mode(item))


def _mode(item: Item) -> int:
    """A package's own mode; of what this build made only whether it is a program: the rest is somebody's umask."""
    mode = stat.S_IMODE(item.file.stat().st_mode)
    if item.package.startswith("@"):
        return 0o755 if mode & 0o100 else 0o644
    return mode


def _say_nothing(_library: str) -> str:
    return ""


def close_libraries(tree: Tree, pool: Pool, below: Tree | None,
                    suggest: Callable[[str], str] = _say_nothing,
                    folders: Sequence[str] = elf.LIBRARY_FOLDERS) -> list[str]:
    """Add every library that an ELF file of the tree needs and that neither the tree nor the one below has.

    `suggest` says what to do about one that is nowhere; `folders` are where the loader looks.
    """
    findings: list[str] = []
    known: dict[str, elf.Needs] = {}
    places = _Places(tree=tree, below=below)
    waiting = [entry for entry in tree if entry.kind is Kind.FILE]
    while waiting:
        entry = waiting.pop()
        try:
            needs = elf.read_needs(entry.read() if elf.is_program(entry.read_head(20)) else b"", entry.path)
        except BuildError as err:
            findings.append(f"slice {places.slice_of(entry.path)!r}: {err}")
            continue
        if needs is None:
            continue
        known[entry.path] = needs
        wanted = [_candidates(name, needs, folders) for name in needs.libraries]
        wanted += [(needs.interpreter,)] if needs.interpreter else []
        for candidates in wanted:
            found = _provide(candidates, entry, places, pool)
            if found is None:
                name = posixpath.basename(candidates[0])
                findings.append("; ".join(filter(None, (
                    f"slice {entry.origin.slice!r}: {entry.path} needs {name}, which no package of the image has",
                    suggest(name)))))
            waiting += found or []
    return [*findings, *missing_versions(known, places, folders)]


def _candidates(library: str, needs: elf.Needs, folders: Sequence[str]) -> tuple[str, ...]:
    return tuple(posixpath.join(folder, library) for folder in (*needs.run_path, *folders))


def missing_versions(known: Mapping[str, elf.Needs], places: _Places,
                     folders: Sequence[str] = elf.LIBRARY_FOLDERS) -> list[str]:
    """A program from elsewhere finds every library, and still does not start: it was linked against newer ones."""
    found = []
    defined: dict[str, frozenset[str]] = {}
    for path, needs in sorted(known.items()):
        for library, versions in needs.versions.items():
            provider = next(filter(None, map(places.get, _candidates(library, needs, folders))), None)
            if provider is None:
                continue
            if provider.path not in defined:
                has = known.get(provider.path) or elf.read_needs(provider.read(), provider.path)
                defined[provider.path] = has.defines if has is not None else frozenset()
            lacks = sorted(set(versions) - defined[provider.path]) if defined[provider.path] else []
            if lacks:
                found.append(f"slice {places.slice_of(path)!r}: {path} needs {', '.join(lacks)} of {library}, which "
                             f"{provider.path} does not have; take one that was built for the image's distribution")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """The image, and for an extension the image it is mounted over."""

    tree: Tree
    below: Tree | None

    def has(self, path: str) -> bool:
        return self.get(path) is not None

    def get(self, path: str) -> Entry | None:
        """What a path leads to, in the image or in the one below it."""
        normal = posixpath.normpath(path)
        return next((entry for tree in (self.tree, self.below) if tree is not None
                     if (entry := tree.get(follow(tree, normal))) is not None), None)

    def slice_of(self, path: str) -> str:
        entry = self.get(path)
        return entry.origin.slice if entry is not None else ""


def has_path(tree: Tree, path: str) -> bool:
    return tree.get(follow(tree, posixpath.normpath(path))) is not None


def _provide(candidates: Sequence[str], entry: Entry, places: _Places, pool: Pool) -> list[Entry] | None:
    """Make sure that one of the candidate paths exists; returns what had to be added, None when nothing has it."""
    if any(map(places.has, candidates)):
        return []
    tree = places.tree
    paths = [follow(tree, posixpath.normpath(path)) for path in candidates]
    item = next((found for found in map(pool.find, paths) if found is not None), None)
    if item is None:
        return None
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


def check_tree(slices: Sequence[Slice], tree: Tree, below: Tree | None) -> list[str]:
    return [*tree.conflicts, *dangling_links(tree, below), *missing_expectations(slices, tree, below),
            *missing_config_paths(slices, tree, below), *strange_programs(tree, below)]


def strange_programs(tree: Tree, below: Tree | None = None) -> list[str]:
    """What has the execute bit and cannot be started: another machine's, a script without interpreter, mere data."""
    found = []
    for entry in tree:
        if entry.kind is not Kind.FILE or not entry.mode & 0o111:
            continue
        head = entry.read_head(256)
        if head[:2] == b"#!":
            name = "".join(head[2:].split(b"\n")[0].decode("utf-8", "replace").split()[:1])
            reason = "" if _exists(name, tree, below) else f"is a script for {name!r}, which is not in the image"
        else:
            reason = "" if elf.is_program(head) else "has the execute bit and is not an ELF file for x86-64"
        found += [f"slice {entry.origin.slice!r}: {entry.path} {reason}"] if reason else []
    return found


def dangling_links(tree: Tree, below: Tree | None = None) -> list[str]:
    found = []
    for entry in tree:
        if entry.kind is not Kind.LINK:
            continue
        target = follow(tree, entry.path)
        end = tree.get(target)
        if end is not None and end.kind is Kind.LINK:
            found.append(f"slice {entry.origin.slice!r}: link {entry.path} points round in a circle")
        elif end is None and not _is_runtime(target) and not (below and has_path(below, target)):
            found.append(f"slice {entry.origin.slice!r}: link {entry.path} points to {target}, "
                         "which is not in the image")
    return found


def _exists(path: str, tree: Tree, below: Tree | None) -> bool:
    return has_path(tree, path) or _is_runtime(path) or (below is not None and has_path(below, path))


def missing_expectations(slices: Sequence[Slice], tree: Tree, below: Tree | None = None) -> list[str]:
    return [f"slice {row.name!r}: {path} must exist and does not"
            for row in slices for path in row.expects if not _exists(path, tree, below)]


# An absolute path as the value of a setting: after '=', ':' or a blank, up to the next blank or quote.
_SETTING = re.compile(r"""^\s*[^#;\s][^=\n]*[=:\s]\s*["']?(/[\w./+-]+)""", re.MULTILINE)


def missing_config_paths(slices: Sequence[Slice], tree: Tree, below: Tree | None = None) -> list[str]:
    """Paths that configuration files name and that will not exist, where a slice asks for its files to be read so."""
    found = []
    for row in slices:
        for path in row.configs:
            entry = tree.get(path)
            if entry is None or entry.kind is not Kind.FILE:
                found.append(f"slice {row.name!r}: configuration {path} must exist and does not")
                continue
            named = sorted(set(map(_plain_path, _SETTING.findall(entry.read().decode("utf-8", "replace")))) - {""})
            found += [f"slice {row.name!r}: {path} names {name}, which will not exist" for name in named
                      if not _exists(name, tree, below)]
    return found


def _plain_path(found: str) -> str:
    """What follows a colon may be the rest of a URL: a host after two slashes, a path of this machine after three."""
    if found.startswith("//") and not found.startswith("///"):
        return ""
    return f"/{found.lstrip('/')}"


def weigh(tree: Tree) -> Mapping[str, tuple[int, int]]:
    """Files and bytes by slice."""
    totals: dict[str, tuple[int, int]] = {}
    for entry in tree:
        if entry.kind is Kind.FILE:
            count, size = totals.get(entry.origin.slice, (0, 0))
            totals[entry.origin.slice] = (count + 1, size + entry.size)
    return totals
