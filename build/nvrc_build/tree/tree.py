# SPDX-License-Identifier: Apache-2.0
"""The only creator of entries in an image. Every entry is recorded with its mode, hash, and the slice it came from.

The tree is a value, not a folder: file systems and archives are written from it, so neither the umask, nor the
account, nor the order of a directory on the build machine can leak into an image. Owner is always root.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.image_path import clean_path


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who asked for an entry, and which package (or other source) it was taken from."""

    slice: str
    package: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    path: str
    kind: Kind
    mode: int
    origin: Origin
    size: int = 0
    sha256: str = ""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: Path | bytes = b""

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def read_head(self, size: int) -> bytes:
        """The first bytes: a file may be as large as an image."""
        if isinstance(self.content, bytes):
            return self.content[:size]
        with self.content.open("rb") as stream:
            return stream.read(size)

    def same_as(self, other: Entry) -> bool:
        mine = (self.kind, self.mode, self.sha256, self.target, self.device, self.xattrs)
        return mine == (other.kind, other.mode, other.sha256, other.target, other.device, other.xattrs)


class Tree:
    """Entries by path. Invariant: a path has one entry, and its parents are folders."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self.conflicts: list[str] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries[path] for path in sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def add_file(self, path: str, content: Path | bytes, origin: Origin, mode: int = 0o644, *,
                 xattrs: tuple[tuple[str, bytes], ...] = ()) -> None:
        if isinstance(content, Path) and not content.is_file():
            raise BuildError(f"{path} is not a file where it was taken from", "leave it out of the slice")
        size, found = _measure(content)
        self._add(Entry(path=clean_path(path), kind=Kind.FILE, mode=mode, origin=origin, size=size, sha256=found,
                        xattrs=xattrs, content=content))

    def replace_file(self, path: str, content: Path | bytes, origin: Origin) -> None:
        """A file that stands for whatever slices had there, and disagrees with none."""
        self._entries.pop(clean_path(path), None)
        self.add_file(path, content, origin)

    def add_folder(self, path: str, origin: Origin, mode: int = 0o755) -> None:
        self._add(Entry(path=clean_path(path), kind=Kind.FOLDER, mode=mode, origin=origin))

    def add_link(self, path: str, target: str, origin: Origin) -> None:
        if not target or not target.isprintable():
            raise BuildError(f"link {path} has a target that is not one line of text: {target!r}",
                             "leave it out of the slice")
        self._add(Entry(path=clean_path(path), kind=Kind.LINK, mode=0o777, origin=origin, target=target))

    def add_console(self, path: str, origin: Origin) -> None:
        """The one device node an initrd carries: the kernel opens it for PID 1 before anything is mounted."""
        self._add(Entry(path=clean_path(path), kind=Kind.NODE, mode=0o600, origin=origin, device=(5, 1)))

    def _add(self, entry: Entry) -> None:
        if entry.mode & (stat.S_ISUID | stat.S_ISGID):
            self.conflicts.append(f"slice {entry.origin.slice!r}: {entry.path} is setuid or setgid")
        if entry.kind is Kind.FILE and entry.mode & stat.S_IWOTH:
            self.conflicts.append(f"slice {entry.origin.slice!r}: {entry.path} can be written by every user")
        known = self._entries.get(entry.path)
        if known is None:
            self._add_parents(entry)
            self._entries[entry.path] = entry
        elif known.kind is Kind.FOLDER and entry.kind is Kind.FOLDER and known.origin.slice == _IMPLIED:
            self._entries[entry.path] = entry
        elif not known.same_as(entry):
            self.conflicts.append(f"slices {known.origin.slice!r} and {entry.origin.slice!r} disagree on {entry.path}: "
                                  f"{_brief(known)} against {_brief(entry)}")

    def _add_parents(self, entry: Entry) -> None:
        for parent in (str(parent) for parent in PurePosixPath(entry.path).parents):
            known = self._entries.get(parent)
            if known is None:
                self._entries[parent] = Entry(path=parent, kind=Kind.FOLDER, mode=0o755, origin=Origin(slice=_IMPLIED))
            elif known.kind is not Kind.FOLDER:
                self.conflicts.append(f"slice {entry.origin.slice!r}: {entry.path} lies below {parent}, "
                                      f"which slice {known.origin.slice!r} makes a {known.kind.value}")


# Parents that nobody declared; a declaration of the same folder replaces them.
_IMPLIED = "implied"


def _measure(content: Path | bytes) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), found


def _brief(entry: Entry) -> str:
    detail = entry.sha256[:12] or entry.target
    return f"{entry.kind.value} {entry.mode:04o} {detail}".rstrip()
