# SPDX-License-Identifier: Apache-2.0
"""One call at a time to a program of the guest that serves ttRPC on a socket, within a deadline.

As much of PROTOCOL.md of containerd/ttrpc and of protobuf's encoding as messages of texts and bytes need. What the
other side sends is bounded, and a field that is not where it belongs is an error.
"""

from __future__ import annotations

import struct

from guest_cdi.lean.light import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from _socket import socket

HEADER = struct.Struct(">IIBB")  # length of the body, stream, type, flags
REQUEST, RESPONSE = 1, 2
LARGEST = 4 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class RefusedError(Exception):
    """The other side's status: a number of google.rpc.Code, and its words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class WireError(ValueError):
    """What came is not a message."""


class Client:
    """`connected`: a descriptor of a stream; the client closes it."""

    def __init__(self, connected: int, now: Callable[[], float], until_s: float) -> None:
        from _socket import AF_UNIX, SOCK_STREAM, socket

        self._socket: socket = socket(AF_UNIX, SOCK_STREAM, 0, connected)
        self._now, self._until_s, self._stream = now, until_s, -1

    def call(self, service: str, method: str, *fields: tuple[int, bytes]) -> bytes:
        """The answer's message. TimeoutError when the time is up, ConnectionError when the other side has gone."""
        self._stream += 2
        left_ns = max(1, int((self._until_s - self._now()) * 1e9))
        body = field(1, service.encode()) + field(2, method.encode()) + field(3, encode(*fields)) + _number(4, left_ns)
        self._wait()
        self._socket.sendall(HEADER.pack(len(body), self._stream, REQUEST, 0) + body)
        while True:
            size, stream, kind, _flags = HEADER.unpack(self._receive(HEADER.size))
            if kind != RESPONSE or size > LARGEST:
                raise WireError(f"a message of type {kind} with {size} bytes")
            answer = self._receive(size)
            if stream == self._stream:
                return _unwrap(answer)

    def _receive(self, count: int) -> bytes:
        pieces, missing = [], count
        while missing:
            self._wait()
            piece = self._socket.recv(min(missing, 1 << 16))
            if not piece:
                raise ConnectionError("the connection was closed")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _wait(self) -> None:
        left_s = self._until_s - self._now()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)

    def close(self) -> None:
        self._socket.close()


def encode(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(field(number, value) for number, value in fields)


def field(number: int, value: bytes) -> bytes:
    """One of bytes, or a text; left out when it is empty, as in proto3."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value if value else b""


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _unwrap(answer: bytes) -> bytes:
    status = take(answer, 1)
    code = number(status, 1)
    if code:
        raise RefusedError(code, take(status, 2).decode("utf-8", "backslashreplace"))
    return take(answer, 2)


def take(message: bytes, wanted: int) -> bytes:
    """The last field of that number, which holds bytes; empty if there is none."""
    found: bytes | int = b""
    for which, value in _fields(message):
        found = value if which == wanted else found
    if isinstance(found, int):
        raise WireError(f"field {wanted} is a number")
    return found


def number(message: bytes, wanted: int) -> int:
    found: bytes | int = 0
    for which, value in _fields(message):
        found = value if which == wanted else found
    if not isinstance(found, int):
        raise WireError(f"field {wanted} is not a number")
    return found


def _fields(message: bytes) -> list[tuple[int, bytes | int]]:
    found: list[tuple[int, bytes | int]] = []
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        which, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            found.append((which, value))
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        if size < 0 or at + size > len(message):
            raise WireError(f"field {which} is cut short, or of wire type {kind}")
        found.append((which, message[at:at + size]))
        at += size
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at:at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise WireError("a number without an end")
