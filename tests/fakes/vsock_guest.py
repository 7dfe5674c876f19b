# SPDX-License-Identifier: Apache-2.0
"""QEMU and a guest in one: the front end of a vhost-user vsock device, with rings in memory of its own.

The guest accepts connections on the ports it is given and does with each packet what it is told; it can also misbehave.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
from pathlib import Path

from nvrc_lab.devices import vhost_user as wire
from nvrc_lab.devices.vhost_user import Request
from nvrc_lab.devices.vsock import GUEST, HEADER, HOST, Op, Packet

SIZE, RING = 1 << 20, 8
GUEST_AT, HOST_AT = 0x10_0000, 0x7F00_0000_0000
BUFFER = 4096
RX, TX = 0, 1


class Guest:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(str(path))
        self._fd = os.memfd_create("guest")
        os.ftruncate(self._fd, SIZE)
        self.memory = mmap.mmap(self._fd, SIZE)
        self.kicks = [os.eventfd(0), os.eventfd(0)]
        self.calls = [os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)]
        self._given = [0, 0]
        self._seen = [0, 0]

    def close(self) -> None:
        self.socket.close()
        self.memory.close()
        for fd in (self._fd, *self.kicks, *self.calls):
            os.close(fd)

    # QEMU's part

    def tell(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.socket, [wire.HEADER.pack(request, wire.VERSION, len(payload)) + payload], fds)

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        self.tell(request, payload)
        head = self.socket.recv(wire.HEADER.size, socket.MSG_WAITALL)
        answered, flags, size = wire.HEADER.unpack(head)
        assert (answered, flags) == (request, wire.VERSION | wire.REPLY)
        return self.socket.recv(size, socket.MSG_WAITALL)

    def start(self) -> None:
        self.tell(Request.SET_OWNER)
        self.tell(Request.SET_FEATURES, self.ask(Request.GET_FEATURES))
        self.tell(Request.SET_MEM_TABLE, struct.pack("<II", 1, 0) + wire.REGION.pack(GUEST_AT, SIZE, HOST_AT, 0), (self._fd,))
        for index in (RX, TX):
            self.tell(Request.SET_VRING_NUM, struct.pack("<II", index, RING))
            self.tell(Request.SET_VRING_BASE, struct.pack("<II", index, 0))
            at = HOST_AT + self._ring(index)
            self.tell(Request.SET_VRING_ADDR, wire.ADDRESSES.pack(index, 0, at, at + 0x800, at + 0x400, 0))
            self.tell(Request.SET_VRING_CALL, struct.pack("<Q", index), (self.calls[index],))
            self.tell(Request.SET_VRING_KICK, struct.pack("<Q", index), (self.kicks[index],))
            self.tell(Request.SET_VRING_ENABLE, struct.pack("<II", index, 1))
        for slot in range(RING):
            self._offer(RX, slot, BUFFER, flags=2)

    # The guest's driver: descriptors at 0, available at 0x400, used at 0x800 of each ring; buffers behind the rings

    def _ring(self, index: int) -> int:
        return 0x1000 * index

    def _buffer(self, index: int, slot: int) -> int:
        return 0x1_0000 * (1 + index) + BUFFER * slot

    def _offer(self, index: int, slot: int, size: int, *, flags: int, following: int = 0) -> None:
        ring = self._ring(index)
        struct.pack_into("<QIHH", self.memory, ring + 16 * slot, GUEST_AT + self._buffer(index, slot), size, flags, following)
        struct.pack_into("<H", self.memory, ring + 0x404 + 2 * (self._given[index] % RING), slot)
        self._given[index] += 1
        struct.pack_into("<H", self.memory, ring + 0x402, self._given[index] & 0xFFFF)
        with contextlib.suppress(OSError):
            os.eventfd_write(self.kicks[index], 1)

    def send_raw(self, data: bytes, *, flags: int = 0, following: int = 0) -> None:
        slot = self._given[TX] % RING
        at = self._buffer(TX, slot)
        self.memory[at:at + len(data)] = data
        self._offer(TX, slot, len(data), flags=flags, following=following)

    def send(self, packet: Packet) -> None:
        self.send_raw(HEADER.pack(GUEST, HOST, packet.guest_port, packet.host_port, len(packet.data), 1, packet.op,
                                  packet.flags, packet.room, packet.taken) + packet.data)

    def receive(self) -> Packet:
        """The host's next packet; its buffer goes back into the ring."""
        ring = self._ring(RX)
        while struct.unpack_from("<H", self.memory, ring + 0x802)[0] == self._seen[RX] & 0xFFFF:
            ready, _, _ = select.select([self.calls[RX]], [], [], 5)
            assert ready, "the device sent nothing"
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.calls[RX])
        slot, size = struct.unpack_from("<II", self.memory, ring + 0x804 + 8 * (self._seen[RX] % RING))
        self._seen[RX] += 1
        at = self._buffer(RX, slot)
        raw = self.memory[at:at + size]
        self._offer(RX, slot, BUFFER, flags=2)
        fields = HEADER.unpack_from(raw)
        assert fields[:2] == (HOST, GUEST)
        return Packet(op=fields[6], guest_port=fields[3], host_port=fields[2], flags=fields[7], room=fields[8],
                      taken=fields[9], data=raw[HEADER.size:])

    def accept(self, *, room: int = 1 << 16) -> Packet:
        """The next connection, accepted."""
        asked = self.receive()
        assert asked.op == Op.REQUEST
        self.send(Packet(op=Op.RESPONSE, guest_port=asked.guest_port, host_port=asked.host_port, room=room))
        return asked
