# SPDX-License-Identifier: Apache-2.0
"""What others put into PID 1's hands with a message on a socket of its own: who they are, and descriptors.

The last one to close a file waits for what its close takes, and who made it decides about that: a connection that
lingers (SO_LINGER) waits for its peer, for years if it likes. So PID 1 is never the last. Follows unix(7), socket(7).
"""

from __future__ import annotations

import _socket  # not socket, which takes 5 ms to make itself comfortable
import os
import struct

from guest_cdi.lean.light import NamedTuple, NoReturn

MOST = 253  # SCM_MAX_FD: of one message
ROOM = _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(4 * MOST)  # the sender, and all that he may add
_AT_ONCE = 512  # PID 1 may have 1024


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


def discard(descriptors: tuple[int, ...]) -> None:
    """Close them. A child has them as well and closes them last, by ending, which waits for no peer."""
    ends: tuple[int, ...] = ()
    try:
        ends = os.pipe2(os.O_CLOEXEC)
        if os.fork() == 0:
            _outlast(*ends)
    except OSError:
        pass  # no process is to be had; they are closed all the same
    for descriptor in (*descriptors, *ends):
        os.close(descriptor)


def _outlast(waiting: int, holding: int) -> NoReturn:  # pragma: no cover - in the child only
    """Until PID 1 has closed its own."""
    try:
        os.close(holding)
        os.read(waiting, 1)
    finally:
        os._exit(0)


def hang_up(connection: _socket.socket) -> None:
    """Close a connection, and what its peer has sent and nobody has read."""
    connection.shutdown(_socket.SHUT_RD)  # nothing comes after that
    while found := _take(connection):
        discard(found)
    connection.close()


def _take(connection: _socket.socket) -> tuple[int, ...]:
    """The next descriptors that wait in it; none at its end."""
    taken: tuple[int, ...] = ()
    while len(taken) < _AT_ONCE:
        try:
            data, extra, _, _ = connection.recvmsg(1 << 16, ROOM, _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
        except OSError:
            break
        for _level, kind, value in extra:
            taken += read_descriptors(value) if kind == _socket.SCM_RIGHTS else ()
        if not data:
            break
    return taken
