# SPDX-License-Identifier: Apache-2.0
"""The narrow, read-only view of a machine that the discoverers need, and the one that looks at real files.

Paths are absolute as the described machine sees them. With a root other than "/" every symbolic link is followed
inside that root, also an absolute one, so that an image tree on a build machine reads as it will in the guest.
Directories and links are read once in the life of the object: a driver does not change while it is described.
"""

from __future__ import annotations

import errno
import os
import stat

from guest_cdi.lean.light import Enum, Mapping, NamedTuple, Protocol

# The kernel's own limit (path_resolution(7)).
MAX_LINKS = 40


class FileInfo(NamedTuple):
    """The part of lstat that a document can depend on; major and minor are those of a device node."""

    mode: int
    major: int = 0
    minor: int = 0
    gid: int = 0


class Kind(Enum):
    FILE = "file"           # everything that can be mounted as one: regular files, sockets, nodes
    DIRECTORY = "directory"
    LINK = "link"


class Host(Protocol):
    """Every method raises OSError as the kernel gives it; the caller says what that means."""

    def lstat(self, path: str) -> FileInfo: ...
    def stat(self, path: str) -> FileInfo: ...
    def resolve(self, path: str) -> str: ...
    def read_link(self, path: str) -> str: ...
    def scan(self, path: str) -> Mapping[str, Kind]: ...
    def open(self, path: str) -> int: ...


class LinuxHost:
    """The files below a root directory; "/" is this machine."""

    __slots__ = ("_canonical", "_following", "_prefix", "_scans")

    def __init__(self, root: str = "/") -> None:
        real = os.path.realpath(root)
        self._prefix = "" if real == "/" else real
        self._canonical: dict[str, str] = {}
        self._scans: dict[str, Mapping[str, Kind]] = {}
        self._following: list[str] = []

    def lstat(self, path: str) -> FileInfo:
        return _info(os.lstat(self._place(path)))

    def stat(self, path: str) -> FileInfo:
        return _info(os.stat(self._prefix + self.resolve(path) if self._prefix else path))

    def read_link(self, path: str) -> str:
        return os.readlink(self._place(path))

    def open(self, path: str) -> int:
        # O_NONBLOCK: a FIFO where a library should be must not stop a boot.
        return os.open(self._prefix + self.resolve(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)

    def scan(self, path: str) -> Mapping[str, Kind]:
        canonical = self.resolve(path)
        found = self._scans.get(canonical)
        if found is None:
            with os.scandir(self._prefix + canonical) as entries:
                found = {entry.name: _kind(entry) for entry in entries}
            self._scans[canonical] = found
        return found

    def resolve(self, path: str) -> str:
        """The path without symbolic links; the last part must exist."""
        return self._walk("", path) or "/"

    def _place(self, path: str) -> str:
        """Where the kernel finds `path` without following its last part."""
        if not self._prefix:
            return path
        parent, _, name = path.rpartition("/")
        return f"{self._prefix}{self._walk('', parent)}/{name}"

    def _walk(self, base: str, path: str) -> str:
        current = "" if path.startswith("/") else base
        for part in path.split("/"):
            if part == "..":
                current = current.rpartition("/")[0]
            elif part and part != ".":
                current = self._step(current, part)
        return current

    def _step(self, parent: str, name: str) -> str:
        path = f"{parent}/{name}"
        known = self._canonical.get(path)
        if known is None:
            known = self._follow(parent, path) if stat.S_ISLNK(os.lstat(self._prefix + path).st_mode) else path
            self._canonical[path] = known
        return known

    def _follow(self, parent: str, path: str) -> str:
        if path in self._following or len(self._following) >= MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._following[0] if self._following else path)
        self._following.append(path)
        try:
            return self._walk(parent, os.readlink(self._prefix + path))
        finally:
            self._following.pop()


def _info(result: os.stat_result) -> FileInfo:
    return FileInfo(result.st_mode, os.major(result.st_rdev), os.minor(result.st_rdev), result.st_gid)


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return Kind.LINK
    return Kind.DIRECTORY if entry.is_dir(follow_symlinks=False) else Kind.FILE


def read_file(host: Host, path: str, limit: int = 1 << 20) -> bytes:
    """The content of a file, refused beyond `limit`: what is read here is small, and its writer may be hostile."""
    descriptor = host.open(path)
    try:
        content = b""
        while len(content) <= limit:
            chunk = os.read(descriptor, limit + 1 - len(content))
            if not chunk:
                return content
            content += chunk
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
