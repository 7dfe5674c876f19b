# SPDX-License-Identifier: Apache-2.0
"""PID 1 in the agent's place: whoever asks for an agent that will never run is told why there is none.

Kata's runtime dials the agent's vsock port until somebody answers, for minutes. Whatever it asks, the answer is a
refusal with the verdict in one line, which the runtime passes on up to the events of the pod. Of a request only the
ten bytes of its header are read and its body is skipped, so there is nothing to parse. Sizes, connections, answers and
time are bounded; a peer that sends garbage or takes no answer is dropped. One thread, one event loop.

Follows PROTOCOL.md of containerd/ttrpc, google.rpc.Status and vsock(7). Loaded only when a boot has failed.
"""

from __future__ import annotations

import _socket
import struct

from guest_cdi.lean.light import Callable
from nvrc.machine.loop import Loop

PORT = 1024  # of kata-agent
HEADER = struct.Struct(">IIBB")  # length of the body, stream, type, flags
REQUEST, RESPONSE = 1, 2
FAILED_PRECONDITION = 9
LARGEST_BODY = 4 << 20  # as in every implementation of the protocol
MOST_PEERS = 8
MOST_ANSWERS = 64  # to one peer: the runtime asks once
PIECE = 1 << 16
GRACE_S = 0.5  # after the runtime has gone, for one that dials again


class GarbageError(ValueError):
    """What a peer sent is no frame of the protocol, or is one that no runtime sends."""


def refuse(stream: int, text: str) -> bytes:
    """The answer to the request on a stream: a response that holds a status and no payload."""
    message = text.encode("ascii", "replace")
    status = b"\x08" + bytes([FAILED_PRECONDITION]) + _field(2, message)
    body = _field(1, status)
    return HEADER.pack(len(body), stream, RESPONSE, 0) + body


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf encodes it."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + content


class Requests:
    """Cuts what a peer sends into frames, of which the headers alone are looked at."""

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0

    def feed(self, data: bytes) -> list[int]:
        """The streams of those requests that have now come whole."""
        streams: list[int] = []
        rest = memoryview(data)
        while True:
            missing = HEADER.size - len(self._head)
            self._head, rest = self._head + rest[:missing], rest[missing:]
            if len(self._head) < HEADER.size:
                return streams
            size, stream, kind, _flags = HEADER.unpack(self._head)
            if missing:
                if size > LARGEST_BODY or kind == RESPONSE:
                    raise GarbageError
                self._skip = size
            skipped = min(self._skip, len(rest))
            self._skip, rest = self._skip - skipped, rest[skipped:]
            if self._skip:
                return streams
            self._head = b""
            if kind == REQUEST:
                streams.append(stream)


class Peer:
    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._requests = Requests()
        self.answers = 0

    def hear(self, text: str) -> bool:
        """Take what has come and answer it; False when the peer has gone or is to go."""
        try:
            data = self._sock.recv(PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        try:
            for stream in self._requests.feed(data):
                self._answer(refuse(stream, text))
        except (OSError, GarbageError):
            return False
        return bool(data)

    def _answer(self, frame: bytes) -> None:
        """All of it at once or never: the kernel has room for an answer to anybody who takes answers."""
        if self.answers >= MOST_ANSWERS or self._sock.send(frame) < len(frame):
            raise GarbageError
        self.answers += 1

    def close(self) -> None:
        self._sock.close()


class Farewell:
    """Serves one listening socket on one loop, until the runtime has its answer and has gone, or time is up."""

    def __init__(self, loop: Loop, now: Callable[[], float], listener: int, text: str,
                 grace_s: float = GRACE_S) -> None:
        self._loop, self._now, self._text, self._grace_s = loop, now, text, grace_s
        self._listener = _socket.socket(fileno=listener)
        self._listener.setblocking(False)
        self._peers: dict[int, Peer] = {}
        self._heard_s: float | None = None
        self.answers = 0

    def serve(self, limit_s: float, is_hurried: Callable[[], bool] = lambda: False) -> int:
        """How many requests were answered."""
        until_s = self._now() + limit_s
        self._loop.watch(self._listener.fileno(), self._accept)
        self._wake_at(until_s)
        try:
            self._loop.run(lambda: self._now() >= until_s or is_hurried() or self._is_heard())
        finally:
            for descriptor in tuple(self._peers):
                self._drop(descriptor)
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
        return self.answers

    def _is_heard(self) -> bool:
        """Somebody took an answer and went, and nobody who took one is left."""
        return (self._heard_s is not None and self._now() >= self._heard_s + self._grace_s
                and not any(peer.answers for peer in self._peers.values()))

    def _accept(self) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        except OSError:
            return
        sock = _socket.socket(fileno=descriptor)
        sock.setblocking(False)
        if len(self._peers) >= MOST_PEERS:
            self._drop(self._least_promising())
        self._peers[descriptor] = Peer(sock)
        self._loop.watch(descriptor, lambda: self._hear(descriptor))

    def _least_promising(self) -> int:
        """The one that has waited longest without a request, else the one that came first."""
        return next((number for number, peer in self._peers.items() if not peer.answers), next(iter(self._peers)))

    def _hear(self, descriptor: int) -> None:
        peer = self._peers[descriptor]
        before = peer.answers
        stays = peer.hear(self._text)
        self.answers += peer.answers - before
        if not stays:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        peer = self._peers.pop(descriptor)
        self._loop.unwatch(descriptor)
        peer.close()
        if peer.answers:
            self._heard_s = self._now()
            self._wake_at(self._heard_s + self._grace_s)

    def _wake_at(self, moment_s: float) -> None:
        self._loop.at(moment_s, lambda: None)
