# SPDX-License-Identifier: Apache-2.0
"""Add or replace files in a verity image: unpack, lay the folder over, pack, hash again. The image itself stays.

Works on any image of Kata's layout with EROFS or ext4 in its first partition, also one this factory did not make.
Extended attributes of the image stay (of ext4 only file capabilities). What cannot be kept as it is (another owner, a
setuid bit) is refused.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.output import disk, pack
from nvrc_build.output.verity import Verity
from nvrc_build.papers import manifest as report
from nvrc_build.tree.tree import Origin, Tree

_BASE = Origin(slice=report.BELOW)
_OVER = Origin(slice="overlay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaid:
    """`rows`: every entry of the new disk, as a manifest writes it."""

    verity: Verity
    filesystem: str
    changes: tuple[str, ...]
    rows: tuple[dict[str, object], ...]


def overlay(image: Path, folder: Path, out: Path, *, tools: Path, epoch: int) -> Overlaid:
    if not folder.is_dir():
        raise WrongCallError(f"{folder} is not a folder", "give the folder whose files are laid over the image")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".overlay-") as scratch:
        work = Path(scratch)
        disk.read_partition(image, 1, work / "data")
        kind = pack.read_filesystem(work / "data", work / "root", tools=tools)
        tree, changes = lay_over(work / "root", folder)
        pack.write_filesystem(kind, tree, work / "new", tools=tools, epoch=epoch)
        found = disk.write_disk(work / "new", work / "disk")
        (work / "disk").replace(out)
    return Overlaid(verity=found, filesystem=kind.value, changes=changes,
                    rows=tuple(report.describe_entry(entry) for entry in tree))


def lay_over(base: Path, folder: Path) -> tuple[Tree, tuple[str, ...]]:
    """The tree of both, and what the second one did to the first."""
    mine, theirs = _paths(folder), _paths(base)
    findings = [f"{path} is a folder in one and a file in the other" for path in sorted(mine & theirs)
                if _is_folder(folder, path) != _is_folder(base, path)]
    tree = Tree()
    for path in sorted(theirs - mine):
        findings += _add(tree, base, path, _BASE, keep_mode=True)
    for path in sorted(mine):
        findings += _add(tree, folder, path, _OVER, keep_mode=False)
    findings += tree.conflicts
    if findings:
        raise BuildError(f"{folder} cannot be laid over the image", findings=tuple(findings))
    return tree, tuple(_describe(base, folder, path, path in theirs) for path in sorted(mine)
                       if not _is_folder(folder, path))


def _paths(root: Path) -> set[str]:
    return {"/" + os.path.relpath(Path(folder, name), root) for folder, folders, files in os.walk(root)
            for name in (*folders, *files)}


def _is_folder(root: Path, path: str) -> bool:
    return stat.S_ISDIR((root / path[1:]).lstat().st_mode)


def _describe(base: Path, folder: Path, path: str, known: bool) -> str:
    size = (folder / path[1:]).lstat().st_size
    if not known:
        return f"added    {path} ({size} bytes)"
    was = (base / path[1:]).lstat().st_size
    return f"replaced {path} ({was} -> {size} bytes)"


def _add(tree: Tree, root: Path, path: str, origin: Origin, *, keep_mode: bool) -> list[str]:
    """Into the tree; modes of the folder laid over are those of an image (0755 or 0644), not of somebody's umask."""
    file = root / path[1:]
    state = file.lstat()
    mode = stat.S_IMODE(state.st_mode)
    if keep_mode and (state.st_uid or state.st_gid):
        return [f"{path} belongs to {state.st_uid}:{state.st_gid}; only root owns files in an image"]
    if keep_mode and not stat.S_ISREG(state.st_mode) and (found := _xattrs(file)):
        return [f"{path} has attributes of a file: {', '.join(name for name, _ in found)}"]
    if stat.S_ISLNK(state.st_mode):
        tree.add_link(path, str(file.readlink()), origin)
    elif stat.S_ISDIR(state.st_mode):
        tree.add_folder(path, origin, mode if keep_mode else 0o755)
    elif stat.S_ISREG(state.st_mode):
        plain = 0o755 if mode & 0o111 else 0o644
        tree.add_file(path, file, origin, mode if keep_mode or mode & 0o6000 else plain,
                      xattrs=_xattrs(file) if keep_mode else ())
    elif path == "/dev/console":
        tree.add_console(path, origin)
    else:
        return [f"{path} is neither file, folder nor link"]
    return []


def _xattrs(file: Path) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, os.getxattr(file, name, follow_symlinks=False))
                 for name in sorted(os.listxattr(file, follow_symlinks=False)))
