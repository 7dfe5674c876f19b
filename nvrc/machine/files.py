# SPDX-License-Identifier: Apache-2.0
"""Files below a root: of the machine where that is "/", of a folder otherwise. Anybody may; the kernel decides."""

from __future__ import annotations

import errno
import os
import stat

from guest_cdi.lean.light import Callable
from nvrc.machine.system import Node


class Rooted:
    """`root` is where the paths of the guest hang from."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")

    def real_path(self, path: str) -> str:
        return self._root + path


class LinuxFiles(Rooted):
    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        return read(self.real_path(path), limit)

    def read_plain(self, path: str, limit: int) -> bytes:
        """What others wrote, who may have put anything there: no link is followed, and nothing is waited for."""
        descriptor = os.open(self.real_path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            return os.read(descriptor, limit)
        finally:
            os.close(descriptor)

    def write(self, path: str, data: bytes) -> None:
        """Write a file in place with one write(2), as kernel files want it."""
        self._write(path, data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def publish(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file so that a reader sees the old one or the new one, never a part."""
        temporary = f"{path}.new"
        try:
            self._write(temporary, data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            os.rename(self.real_path(temporary), self.real_path(path))
        except OSError:
            try:
                os.unlink(self.real_path(temporary))
            except FileNotFoundError:
                pass
            raise

    def _write(self, path: str, data: bytes, flags: int, mode: int) -> None:
        descriptor = os.open(self.real_path(path), flags | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view):]
        finally:
            os.close(descriptor)

    def append(self, path: str, data: bytes, limit: int) -> None:
        """Add to a file that is put aside as `.old` and begun anew once it holds `limit` bytes."""
        real = self.real_path(path)
        descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(data) > limit:
                os.rename(real, f"{real}.old")
                os.close(descriptor)
                descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(descriptor, data[-limit:])
        finally:
            os.close(descriptor)

    def list_dir(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(os.listdir(self.real_path(path))))

    def read_link(self, path: str) -> str:
        return os.readlink(self.real_path(path))

    def read_parts(self, path: str, at: int, size: int, following: Callable[[bytes], int]) -> None:
        """`size` bytes from `at` on, and so forth from where `following` says after each; until that is 0."""
        descriptor = os.open(self.real_path(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            while at:
                at = following(os.pread(descriptor, size, at))
        finally:
            os.close(descriptor)

    def exists(self, path: str, *, executable: bool = False) -> bool:
        try:
            mode = os.stat(self.real_path(path)).st_mode
        except OSError:
            return False
        return not executable or (stat.S_ISREG(mode) and bool(mode & 0o111))

    def find_node(self, path: str) -> Node | None:
        return find_node(self.real_path(path))

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        os.makedirs(self.real_path(path), mode, exist_ok=True)

    def make_link(self, path: str, target: str) -> None:
        """A symbolic link, in place of whatever file or link had the name."""
        real = self.real_path(path)
        if os.path.lexists(real):
            os.unlink(real)
        os.symlink(target, real)

    def share_socket(self, path: str, target: str) -> None:
        """A second name of a socket. It is looked at by the new name, which nobody else can lead anywhere."""
        made = f"{self.real_path(target)}.new"
        try:
            os.link(self.real_path(path), made, follow_symlinks=False)
            if not stat.S_ISSOCK(os.lstat(made).st_mode):
                raise OSError(errno.ENOTSOCK, "what is in its place is not a socket", path)
            os.rename(made, self.real_path(target))
        finally:
            if os.path.lexists(made):  # rename leaves it where both are names of the same one already
                os.unlink(made)

    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Of what PID 1 made itself. Anybody else gives nothing away; a change of owner may take bits of the mode."""
        if os.getpid() == 1:
            os.chown(self.real_path(path), uid, gid)
        os.chmod(self.real_path(path), mode)

    def open_reader(self, path: str) -> int:
        """A descriptor for the event loop that gives what is added from now on."""
        descriptor = os.open(self.real_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(descriptor, 0, os.SEEK_END)
        return descriptor

    def open_root(self, pid: int) -> int:
        return os.open(self.real_path(f"/proc/{pid}/root"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def connect(self, path: str) -> int:
        """A stream to whoever listens on a socket; its folder is opened first, as names of sockets are short."""
        from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

        folder, _, name = self.real_path(path).rpartition("/")
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{place}/{name}")
            return sock.detach()
        finally:
            sock.close()
            os.close(place)

    def bind_log(self, path: str) -> int:
        """A datagram socket at `path` that anybody may write to and that tells the sender's uid."""
        from nvrc.machine.foreign import bind

        return bind(self.real_path(path))

    def listen_control(self, path: str) -> int:
        """A stream socket at `path` that root alone may connect to."""
        from nvrc.machine.control import listen

        return listen(self.real_path(path))


def read(real: str, limit: int) -> bytes:
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while limit > 0 and (piece := os.read(descriptor, min(limit, 1 << 16))):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def find_node(real: str) -> Node | None:
    """What is at the path itself, links not followed; None for nothing."""
    try:
        found = os.lstat(real)
    except FileNotFoundError:
        return None
    return Node(found.st_mode, os.major(found.st_rdev), os.minor(found.st_rdev), found.st_uid, found.st_gid)
