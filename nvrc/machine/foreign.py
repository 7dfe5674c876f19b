# SPDX-License-Identifier: Apache-2.0
"""What others put into PID 1's hands with a message on a socket of its own: who they are, and descriptors.

The last one to close a file waits for what its close takes, and who made it decides about that: a connection that
lingers (SO_LINGER) waits for its peer, for years if it likes. So PID 1 is never the last, and keeps what came until
another process is to be had, which a container can use up. Follows unix(7), socket(7).
"""

from __future__ import annotations

import _socket  # not socket, which takes 5 ms to make itself comfortable
import os
import struct

from guest_cdi.lean.light import Callable, NamedTuple, NoReturn

MOST = 253  # SCM_MAX_FD: of one message
ROOM = _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(4 * MOST)  # the sender, and all that he may add


def bind(path: str) -> int:
    """A datagram socket for all to write to, that tells who did."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        sock.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - every daemon may log
        return sock.detach()
    finally:
        sock.close()


class Sender(NamedTuple):
    """As the kernel tells it."""

    pid: int
    uid: int
    gid: int


NOBODY = Sender(0, -1, -1)


def receive(descriptor: int, limit: int) -> tuple[bytes, Sender, tuple[int, ...]]:
    """One datagram, its sender, and what descriptors came with it: those that there is no room for the kernel closes
    here, and that may take as long as the sender likes.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM, 0, descriptor)
    try:
        data, extra, _, _ = sock.recvmsg(limit, ROOM, _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
    finally:
        sock.detach()
    told = {kind: value for _level, kind, value in extra}
    creds, rights = told.get(_socket.SCM_CREDENTIALS), told.get(_socket.SCM_RIGHTS, b"")
    return data, Sender(*struct.unpack("3i", creds)) if creds else NOBODY, read_descriptors(rights)


def read_descriptors(rights: bytes) -> tuple[int, ...]:
    """Those of one SCM_RIGHTS."""
    return struct.unpack(f"{len(rights) // 4}i", rights)


class Burden:
    """What came with the last message and is not closed yet. Whoever has one takes no other message in, so it is small:
    PID 1 may have 1024 descriptors.
    """

    def __init__(self, fork: Callable[[], int] = os.fork) -> None:
        self._fork = fork
        self._descriptors: tuple[int, ...] = ()

    def take(self, descriptors: tuple[int, ...]) -> bool:
        """Close them, and whether that could be done."""
        self._descriptors += descriptors
        return self.lay_down()

    def lay_down(self) -> bool:
        """Whether nothing is left. A child has it all as well, and closes it last by ending, which waits for nobody."""
        if not self._descriptors:
            return True
        ends: tuple[int, ...] = ()
        try:
            ends = os.pipe2(os.O_CLOEXEC)
            if self._fork() == 0:
                _outlast(*ends)
            is_shared = True
        except OSError:
            is_shared = False
        for descriptor in (*(self._descriptors if is_shared else ()), *ends):
            os.close(descriptor)
        self._descriptors = () if is_shared else self._descriptors
        return is_shared


def _outlast(waiting: int, holding: int) -> NoReturn:  # pragma: no cover - in the child only
    """Until PID 1 has closed its own."""
    try:
        os.close(holding)
        os.read(waiting, 1)
    finally:
        os._exit(0)


def hang_up(connection: _socket.socket, burden: Burden) -> bool:
    """Close a connection, and what its peer has sent and nobody has read; whether that could be done."""
    connection.shutdown(_socket.SHUT_RD)  # nothing comes after that
    found = _take(connection)
    if found:  # more may wait in it
        return burden.take((*found, connection.detach()))
    connection.close()
    return True


def _take(connection: _socket.socket) -> tuple[int, ...]:
    """The first descriptors that wait in it; none where there are none."""
    taken: tuple[int, ...] = ()
    while not taken:
        try:
            data, extra, _, _ = connection.recvmsg(1 << 16, ROOM, _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
        except OSError:
            break
        for _level, kind, value in extra:
            taken += read_descriptors(value) if kind == _socket.SCM_RIGHTS else ()
        if not data:
            break
    return taken
