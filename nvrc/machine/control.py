# SPDX-License-Identifier: Apache-2.0
"""The local control socket: root connects to /run/nvrc/control.sock, is told the live status, and that is all. Where
nvrc.metrics asks for it, the process that serves metrics may connect as well.

There is nothing to ask for, so there is nothing to parse. The answer goes into the kernel's buffer in one piece and the
connection is closed: a client that never reads, or never stops connecting, costs PID 1 no descriptor, no memory and
no waiting. unix(7).
"""

from __future__ import annotations

import _socket
import os
import struct

from guest_cdi.lean.light import Callable
from nvrc.machine.foreign import Burden, hang_up

BACKLOG = 64
BATCH = 8  # connections of one wake-up, so that other events get their turn
SO_SNDBUFFORCE = 32  # a number that Python does not name
_UCRED, _TIMEVAL = struct.Struct("3i"), struct.Struct("ll")


def listen(path: str) -> int:
    """A listening socket at `path` for root alone, in place of one that an earlier life left there. It gets its name
    when it listens: nobody who finds it is refused.
    """
    fresh = f"{os.path.dirname(path)}/.new"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        sock.bind(fresh)
        os.chmod(fresh, 0o600)
        sock.listen(BACKLOG)
        os.rename(fresh, path)
        return sock.detach()
    finally:
        sock.close()


def serve(listener: int, answer: Callable[[], bytes], burden: Burden, owners: tuple[int, ...] = (0,)) -> bool:
    """Answer those who wait and are of these users, at most one batch. All of them get the same document, made once.
    False where what one of them sent cannot be closed yet.
    """
    document = b""
    for _ in range(BATCH):
        connection = _accept(listener) if burden.lay_down() else None
        if connection is None:
            break
        try:
            if _peer_uid(connection) in owners:
                document = document or answer()
                _send(connection, document)
        except OSError:
            pass  # it has gone away
        finally:
            hang_up(connection, burden)
    return burden.lay_down()


def _accept(listener: int) -> _socket.socket | None:
    sock = _socket.socket(fileno=listener)
    try:
        descriptor, _ = sock._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
    except OSError:
        return None
    finally:
        sock.detach()
    connection = _socket.socket(fileno=descriptor)
    connection.setblocking(False)
    return connection


def _peer_uid(connection: _socket.socket) -> int:
    return int(_UCRED.unpack(connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size))[1])


def _send(connection: _socket.socket, document: bytes) -> None:
    """All of it or nothing useful: the buffer is made large enough first, which root may."""
    try:
        connection.setsockopt(_socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(document))
    except PermissionError:
        pass  # then the default has to do, which is many times what a status takes
    connection.send(document)


def ask(path: str, patience_s: float = 2.0) -> bytes:
    """The client's side: the document, or OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    whole_s = int(patience_s)
    limit = _TIMEVAL.pack(whole_s, int((patience_s - whole_s) * 1e6))
    try:
        # Not settimeout: with it, connecting does not wait for its turn behind other clients.
        for option in (_socket.SO_SNDTIMEO, _socket.SO_RCVTIMEO):
            sock.setsockopt(_socket.SOL_SOCKET, option, limit)
        sock.connect(path)
        pieces = []
        while piece := sock.recv(1 << 16):
            pieces.append(piece)
    finally:
        sock.close()
    if not pieces:
        raise PermissionError(1, "the init answers root alone", path)
    return b"".join(pieces)
