# SPDX-License-Identifier: Apache-2.0
"""A disk as a hostile host has one: it answers what it likes, and when it likes. One NBD server on a unix socket.

The protocol is that of the NBD project's doc/proto.md, as much of it as QEMU speaks to a read-only export.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_HELLO, _OPTION_REPLY, _REQUEST, _REPLY = b"NBDMAGICIHAVEOPT", 0x3E889045565A9, 0x25609513, 0x67446698
_OPTION, _ANSWER, _CALL = struct.Struct(">8sII"), struct.Struct(">QIII"), struct.Struct(">IHHQQI")
_GO, _READ, _DISCONNECT = 7, 0, 2
_ACK, _INFO, _UNSUPPORTED = 1, 3, 0x80000001
_READ_ONLY_EXPORT = 1 | 2


class NbdDisk:
    """`read(offset, size)`: the bytes that the guest is shown; None keeps it waiting for as long as the disk is there."""

    def __init__(self, path: Path, size: int, read: Callable[[int, int], bytes | None]) -> None:
        self.path, self._size, self._read = path, size, read
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def drive(self) -> str:
        """As QEMU's -blockdev takes it, with the node's name `hostile`."""
        return f"driver=nbd,node-name=hostile,read-only=on,server.type=unix,server.path={self.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                self._greet(connection)
                self._answer(connection)
        except OSError:
            pass  # QEMU has ended, or the test has

    def _greet(self, connection: socket.socket) -> None:
        connection.sendall(_HELLO + struct.pack(">H", 1))
        _take(connection, 4)
        while True:
            _, option, size = _OPTION.unpack(_take(connection, _OPTION.size))
            _take(connection, size)
            if option == _GO:
                export = struct.pack(">HQH", 0, self._size, _READ_ONLY_EXPORT)
                connection.sendall(_ANSWER.pack(_OPTION_REPLY, option, _INFO, len(export)) + export)
                connection.sendall(_ANSWER.pack(_OPTION_REPLY, option, _ACK, 0))
                return
            connection.sendall(_ANSWER.pack(_OPTION_REPLY, option, _UNSUPPORTED, 0))

    def _answer(self, connection: socket.socket) -> None:
        while True:
            magic, _, kind, cookie, offset, size = _CALL.unpack(_take(connection, _CALL.size))
            if magic != _REQUEST or kind == _DISCONNECT:
                return
            content = self._read(offset, size) if kind == _READ else b""
            if content is not None:
                connection.sendall(struct.pack(">IIQ", _REPLY, 0, cookie) + content)


def _take(connection: socket.socket, size: int) -> bytes:
    taken = b""
    while len(taken) < size:
        piece = connection.recv(size - len(taken))
        if not piece:
            raise ConnectionResetError
        taken += piece
    return taken
