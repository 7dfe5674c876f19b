# SPDX-License-Identifier: Apache-2.0
"""Stream sockets between host and guest (virtio 1.2, 5.10.6), as packets in and packets out. Pure; no thread, no ring.

The host connects, as Kata's runtime does; a connection that the guest begins is refused. Neither side sends more
than the other has said it has room for.
"""

from __future__ import annotations

import struct
from collections import deque
from enum import IntEnum
from typing import NamedTuple

from nvrc_lab.devices.vhost_ring import ProtocolError

HOST, GUEST = 2, 3  # context ids
HEADER = struct.Struct("<QQIIIHHIII")
STREAM, NO_MORE_SENT, BOTH_WAYS = 1, 2, 3
ROOM = 1 << 18
FIRST_PORT = 1 << 16
_MASK = 0xFFFF_FFFF


class Op(IntEnum):
    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Packet(NamedTuple):
    """`room` and `taken`: the sender's buffer, and how many bytes its reader has taken so far."""

    op: int
    guest_port: int
    host_port: int
    flags: int = 0
    room: int = ROOM
    taken: int = 0
    data: bytes = b""


def pack(packet: Packet) -> bytes:
    """From the host to the guest."""
    return HEADER.pack(HOST, GUEST, packet.host_port, packet.guest_port, len(packet.data), STREAM, packet.op,
                       packet.flags, packet.room, packet.taken) + packet.data


def parse(raw: bytes) -> Packet:
    """From the guest to the host."""
    if len(raw) < HEADER.size:
        raise ProtocolError(f"a vsock packet of {len(raw)} bytes")
    _from, _to, guest_port, host_port, size, _kind, op, flags, room, taken = HEADER.unpack_from(raw)
    data = raw[HEADER.size:HEADER.size + size]
    if len(data) != size:
        raise ProtocolError(f"a vsock packet that promises {size} bytes and has {len(data)}")
    return Packet(op=op, guest_port=guest_port, host_port=host_port, flags=flags, room=room, taken=taken, data=data)


class Stream:
    """One connection: what came and was not read, what shall go and was not sent, and what either side has told."""

    def __init__(self, guest_port: int, host_port: int) -> None:
        self.guest_port, self.host_port = guest_port, host_port
        self.is_open, self.is_over = False, False
        self.received, self.waiting = bytearray(), bytearray()
        self._sent = self._taken = self._told = self._peer_room = self._peer_taken = 0

    def packet(self, op: Op, *, flags: int = 0, data: bytes = b"") -> Packet:
        self._told = self._taken
        return Packet(op=op, guest_port=self.guest_port, host_port=self.host_port, flags=flags, taken=self._taken,
                      data=data)

    def read(self, count: int) -> bytes:
        data = bytes(self.received[:count])
        del self.received[:count]
        self._taken = (self._taken + len(data)) & _MASK
        return data

    @property
    def owes_credit(self) -> bool:
        """The guest believes that half of our room is taken, and it is not."""
        return self.is_open and (self._taken - self._told) & _MASK >= ROOM // 2

    @property
    def credit(self) -> int:
        return max(0, self._peer_room - ((self._sent - self._peer_taken) & _MASK))

    def send(self, most: int) -> Packet:
        data = bytes(self.waiting[:min(most, self.credit)])
        del self.waiting[:len(data)]
        self._sent = (self._sent + len(data)) & _MASK
        return self.packet(Op.RW, data=data)

    def hear(self, packet: Packet) -> None:
        self._peer_room, self._peer_taken = packet.room, packet.taken
        if packet.op == Op.RESPONSE:
            self.is_open = True
        elif packet.op == Op.RW:
            self.received += packet.data
        elif packet.op == Op.RST or (packet.op == Op.SHUTDOWN and packet.flags & NO_MORE_SENT):
            self.is_over = True


class Switchboard:
    """All connections by their ports, and the packets that wait for the guest to take them."""

    def __init__(self) -> None:
        self._streams: dict[tuple[int, int], Stream] = {}
        self._answers: deque[Packet] = deque()
        self._next_port = FIRST_PORT

    def connect(self, port: int) -> Stream:
        stream = Stream(port, self._next_port)
        self._next_port += 1
        self._streams[port, stream.host_port] = stream
        self._answers.append(stream.packet(Op.REQUEST))
        return stream

    def close(self, stream: Stream) -> None:
        if self._streams.pop((stream.guest_port, stream.host_port), None) is not None and not stream.is_over:
            self._answers.append(stream.packet(Op.SHUTDOWN, flags=BOTH_WAYS))
        stream.is_over = True

    def close_all(self) -> None:
        for stream in self._streams.values():
            stream.is_over = True
        self._streams.clear()
        self._answers.clear()

    def hear(self, packet: Packet) -> None:
        stream = self._streams.get((packet.guest_port, packet.host_port))
        if stream is None:
            if packet.op != Op.RST:
                self._answers.append(Packet(op=Op.RST, guest_port=packet.guest_port, host_port=packet.host_port))
            return
        stream.hear(packet)
        if packet.op == Op.CREDIT_REQUEST:
            self._answers.append(stream.packet(Op.CREDIT_UPDATE))
        if stream.is_over:
            del self._streams[packet.guest_port, packet.host_port]
            if packet.op != Op.RST:
                self._answers.append(stream.packet(Op.RST))

    @property
    def has_packet(self) -> bool:
        return bool(self._answers) or self._sender() is not None

    def next_packet(self, most: int) -> Packet:
        """`most`: bytes that the guest has room for beside a header. Only when there is a packet."""
        if self._answers:
            return self._answers.popleft()
        stream = self._sender()
        assert stream is not None  # has_packet is the condition
        return stream.packet(Op.CREDIT_UPDATE) if stream.owes_credit else stream.send(most)

    def _sender(self) -> Stream | None:
        return next((stream for stream in self._streams.values()
                     if stream.owes_credit or (stream.is_open and stream.waiting and stream.credit)), None)
