# SPDX-License-Identifier: Apache-2.0
"""A container's root directory, and the few ways in which a hook touches what is in it.

The content is hostile. Every path is resolved by the kernel with the container's directory as "/" (openat2 with
RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS), whoever swaps directories and links meanwhile; what is then changed is
one name in a directory that is held open. Nothing is opened for reading or writing before it is seen to be a regular
file, so that a FIFO or a device node in the image neither blocks the hook nor is triggered by it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from types import TracebackType

from guest_cdi.lean import linux
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Callable, Self

IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
DIRECTORY = os.O_PATH | os.O_DIRECTORY
# The kernel says EAGAIN when something was renamed during a lookup of "..": an attacker could go on for ever.
LOOKUP_ATTEMPTS = 128
LISTING_LIMIT = 65536


class Handle:
    """An open descriptor that is closed at the end of its block; path is how the container names it, for messages."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str = "") -> None:
        self.fd = fd
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        os.close(self.fd)


class Root(Handle):
    """The directory that is "/" for the container; path is where the machine sees it."""

    __slots__ = ()

    def __init__(self, path: str) -> None:
        try:
            super().__init__(os.open(path, DIRECTORY), path)
        except (OSError, ValueError) as err:  # ValueError: a NUL or a lone surrogate in the name
            raise CdiError("E_CDI_HOOK_ROOT", f"container root {path!r} cannot be opened: {err}") from err
        if self.identity() == _identity(os.stat("/")):
            os.close(self.fd)
            raise CdiError("E_CDI_HOOK_ROOT", f"container root {path!r} is the root of this machine")

    def identity(self) -> tuple[int, int]:
        return _identity(os.fstat(self.fd))

    def open(self, path: str, flags: int = os.O_PATH, resolve: int = IN_ROOT) -> Handle:
        return Handle(_lookup(self.fd, clean(path), flags, resolve), clean(path))

    def make_directories(self, path: str, mode: int = 0o755) -> Handle:
        """Open a directory; it and its missing parents are made. A dangling link on the way is an error."""
        name = "/"
        parent = self.open(name, DIRECTORY)
        for part in clean(path).split("/"):
            name = posixpath.join(name, part)
            with parent:
                parent = self._child(parent, name, mode)
        return parent

    def _child(self, parent: Handle, name: str, mode: int) -> Handle:
        try:
            return self.open(name, DIRECTORY)
        except FileNotFoundError:
            part = posixpath.basename(name)
        try:
            with _naming(parent, part):
                os.mkdir(part, mode, dir_fd=parent.fd)
        except FileExistsError:
            pass  # made meanwhile, or a dangling link, which the next line refuses
        return Handle(_lookup(parent.fd, part, DIRECTORY, linux.RESOLVE_NO_SYMLINKS), name)

    def is_file(self, path: str) -> bool:
        """Whether there is something other than a directory."""
        try:
            with self.open(path) as found:
                return not stat.S_ISDIR(os.fstat(found.fd).st_mode)
        except OSError:
            return False

    def open_regular(self, path: str, flags: int = os.O_RDONLY) -> Handle:
        with self.open(path) as found:
            if not stat.S_ISREG(os.fstat(found.fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return Handle(reopen(found.fd, flags))

    def read(self, path: str, limit_bytes: int) -> bytes:
        with self.open_regular(path) as opened:
            return read_bounded(opened.fd, limit_bytes, path)

    def list(self, path: str, limit: int = LISTING_LIMIT) -> list[str]:
        """The names in a directory, sorted."""
        with self.open(path, DIRECTORY) as found, Handle(reopen(found.fd, os.O_RDONLY)) as opened:
            names: list[str] = []
            with os.scandir(opened.fd) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) > limit:
                        raise OSError(errno.E2BIG, f"more than {limit} entries", path)
        return sorted(names)


def clean(path: str) -> str:
    """Absolute and without "." or "..", as the reference cleans a path before it looks it up."""
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def reopen(fd: int, flags: int) -> int:
    """Open what an O_PATH descriptor stands for, by way of this machine's own /proc."""
    opened = os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY)
    if _identity(os.fstat(opened)) != _identity(os.fstat(fd)):
        os.close(opened)
        raise OSError(errno.EXDEV, "not the file it was opened as", "/proc/self/fd")
    return opened


def read_bounded(fd: int, limit_bytes: int, about: str) -> bytes:
    data = bytearray()
    while chunk := os.read(fd, limit_bytes + 1):
        data += chunk
        if len(data) > limit_bytes:
            raise OSError(errno.EFBIG, f"larger than {limit_bytes} bytes", about)
    return bytes(data)


def create_file(directory: Handle, name: str, content: bytes, mode: int) -> None:
    """Make a file that was not there. Whatever has the name already, be it a link, is an error."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with _naming(directory, name), Handle(os.open(name, flags, 0o600, dir_fd=directory.fd)) as made:
        try:
            write_all(made.fd, content)
            os.fchmod(made.fd, mode)
        except OSError:  # a full disk must not leave half a configuration
            os.unlink(name, dir_fd=directory.fd)
            raise


def replace_file(directory: Handle, name: str, content: bytes, mode: int) -> None:
    """Put a file in place in one step; a link of that name is replaced, not followed."""
    temporary = f"{name}-{random_name()}"
    create_file(directory, temporary, content, mode)
    _rename(directory, temporary, name)


def replace_link(directory: Handle, name: str, target: str) -> None:
    """Put a symbolic link in place in one step, also over a file or another link."""
    temporary = f"{name}-{random_name()}"
    with _naming(directory, name):
        os.symlink(target, temporary, dir_fd=directory.fd)
    _rename(directory, temporary, name)


def write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view):]


def random_name() -> str:
    return os.urandom(16).hex()


def _rename(directory: Handle, temporary: str, name: str) -> None:
    try:
        with _naming(directory, name):
            os.rename(temporary, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    except OSError:
        os.unlink(temporary, dir_fd=directory.fd)
        raise


class _naming:  # noqa: N801 - reads as the statement it is
    """Make errors name the whole path, of which the kernel was only told the last part."""

    __slots__ = ("_path",)

    def __init__(self, directory: Handle, name: str) -> None:
        self._path = posixpath.join(directory.path, name)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(err, OSError):
            raise OSError(err.errno, err.strerror, self._path) from err


def _lookup(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    return persevere(lambda: linux.openat2(dir_fd, path, flags, resolve=resolve))


def persevere(look_up: Callable[[], int], attempts: int = LOOKUP_ATTEMPTS) -> int:
    """What is found, by the last of so many attempts if the kernel puts off all others."""
    try:
        return look_up()
    except BlockingIOError:
        if attempts == 1:
            raise
    return persevere(look_up, attempts - 1)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
