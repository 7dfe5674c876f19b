# SPDX-License-Identifier: Apache-2.0
"""The back end of a vhost-user device: QEMU is the front end, at a UNIX socket, and the guest's memory is shared.

Follows QEMU's docs/interop/vhost-user.rst as far as a device needs that has neither migration nor a dirty log. A
message that makes no sense raises ProtocolError, and whoever serves the connection ends it.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from nvrc_lab.devices.vhost_ring import Memory, ProtocolError, Region, Ring

HEADER, REGION = struct.Struct("<III"), struct.Struct("<QQQQ")
NUMBER, INDEXED, ADDRESSES, CONFIG = (struct.Struct(text) for text in ("<Q", "<II", "<IIQQQQ", "<III"))
VERSION, VERSION_MASK, REPLY = 0x1, 0x3, 0x4
F_PROTOCOL, F_VERSION_1, PROTOCOL_CONFIG = 1 << 30, 1 << 32, 1 << 9
MAX_FDS, MAX_PAYLOAD, MAX_RING = 8, 4096, 32768
INDEX_MASK, NO_DESCRIPTOR = 0xFF, 0x100


class Request(IntEnum):
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    SET_VRING_ENABLE = 18
    GET_CONFIG = 24


Handler = Callable[["Backend", bytes, list[int]], bytes | None]


@dataclass(slots=True, kw_only=True)
class Backend:
    """What the front end has told so far. `config`: the device's configuration space."""

    config: bytes
    rings: tuple[Ring, ...]
    memory: Memory = field(default_factory=Memory)

    def answer(self, request: int, payload: bytes, fds: list[int]) -> bytes | None:
        """The reply to one message, or None where none is due. Takes over the descriptors."""
        handler = _HANDLERS.get(request)
        try:
            if handler is None:
                raise ProtocolError(f"request {request} is not one of this device's")
            return handler(self, payload, fds)
        except struct.error as err:
            raise ProtocolError(f"request {request} is cut short") from err
        finally:
            for fd in fds:
                os.close(fd)

    def ring(self, index: int) -> Ring:
        if index >= len(self.rings):
            raise ProtocolError(f"ring {index} of {len(self.rings)}")
        return self.rings[index]

    def close(self) -> None:
        for ring in self.rings:
            _replace(ring, "kick", -1)
            _replace(ring, "call", -1)
        self.memory.close()


def _features(_backend: Backend, _payload: bytes, _fds: list[int]) -> bytes:
    return NUMBER.pack(F_VERSION_1 | F_PROTOCOL)


def _protocol_features(_backend: Backend, _payload: bytes, _fds: list[int]) -> bytes:
    return NUMBER.pack(PROTOCOL_CONFIG)


def _accepted(_backend: Backend, _payload: bytes, _fds: list[int]) -> None:
    return None


def _set_memory(backend: Backend, payload: bytes, fds: list[int]) -> None:
    count, _ = INDEXED.unpack_from(payload)
    if count != len(fds):
        raise ProtocolError(f"{count} regions of memory with {len(fds)} descriptors")
    backend.memory.close()
    rows = [REGION.unpack_from(payload, INDEXED.size + REGION.size * number) for number in range(count)]
    backend.memory = Memory([
        Region(guest=guest, size=size, host=host, shift=shift, data=mmap.mmap(fd, shift + size))
        for (guest, size, host, shift), fd in zip(rows, fds, strict=True)])


def _set_size(backend: Backend, payload: bytes, _fds: list[int]) -> None:
    index, size = INDEXED.unpack_from(payload)
    if not 0 < size <= MAX_RING:
        raise ProtocolError(f"a ring of {size}")
    backend.ring(index).size = size


def _set_addresses(backend: Backend, payload: bytes, _fds: list[int]) -> None:
    index, _flags, descriptors, used, available, _log = ADDRESSES.unpack_from(payload)
    ring = backend.ring(index)
    ring.descriptors, ring.used, ring.available = descriptors, used, available


def _set_base(backend: Backend, payload: bytes, _fds: list[int]) -> None:
    index, base = INDEXED.unpack_from(payload)
    backend.ring(index).next = base & 0xFFFF


def _get_base(backend: Backend, payload: bytes, _fds: list[int]) -> bytes:
    """The front end asks where a ring stands in order to stop it."""
    index, _ = INDEXED.unpack_from(payload)
    ring = backend.ring(index)
    _replace(ring, "kick", -1)
    return INDEXED.pack(index, ring.next)


def _set_kick(backend: Backend, payload: bytes, fds: list[int]) -> None:
    _take_descriptor(backend, payload, fds, "kick")


def _set_call(backend: Backend, payload: bytes, fds: list[int]) -> None:
    _take_descriptor(backend, payload, fds, "call")


def _take_descriptor(backend: Backend, payload: bytes, fds: list[int], name: str) -> None:
    (word,) = NUMBER.unpack_from(payload)
    ring = backend.ring(word & INDEX_MASK)
    _replace(ring, name, -1 if word & NO_DESCRIPTOR or not fds else fds.pop(0))


def _replace(ring: Ring, name: str, fd: int) -> None:
    old: int = getattr(ring, name)
    if old >= 0:
        os.close(old)
    setattr(ring, name, fd)


def _enable(backend: Backend, payload: bytes, _fds: list[int]) -> None:
    index, word = INDEXED.unpack_from(payload)
    backend.ring(index).is_enabled = bool(word)


def _get_config(backend: Backend, payload: bytes, _fds: list[int]) -> bytes:
    at, size, flags = CONFIG.unpack_from(payload)
    if at + size > len(backend.config):
        raise ProtocolError(f"{size} bytes of configuration at {at}")
    return CONFIG.pack(at, size, flags) + backend.config[at:at + size]


_HANDLERS: Mapping[int, Handler] = {
    Request.GET_FEATURES: _features, Request.SET_FEATURES: _accepted, Request.SET_OWNER: _accepted,
    Request.RESET_OWNER: _accepted, Request.SET_MEM_TABLE: _set_memory, Request.SET_VRING_NUM: _set_size,
    Request.SET_VRING_ADDR: _set_addresses, Request.SET_VRING_BASE: _set_base, Request.GET_VRING_BASE: _get_base,
    Request.SET_VRING_KICK: _set_kick, Request.SET_VRING_CALL: _set_call, Request.SET_VRING_ERR: _accepted,
    Request.GET_PROTOCOL_FEATURES: _protocol_features, Request.SET_PROTOCOL_FEATURES: _accepted,
    Request.SET_VRING_ENABLE: _enable, Request.GET_CONFIG: _get_config,
}


def receive(client: socket.socket) -> tuple[int, bytes, list[int]] | None:
    """One whole message with its descriptors; None at the end of the connection."""
    head, fds, _flags, _address = socket.recv_fds(client, HEADER.size, MAX_FDS)
    if not head:
        return None
    head += _exactly(client, HEADER.size - len(head))
    request, flags, size = HEADER.unpack(head)
    if flags & VERSION_MASK != VERSION or size > MAX_PAYLOAD:
        raise ProtocolError(f"a message with flags {flags:#x} and {size} bytes")
    return request, _exactly(client, size), list(fds)


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            raise ProtocolError("the connection ended within a message")
        data += piece
    return data


def pack_reply(request: int, payload: bytes) -> bytes:
    return HEADER.pack(request, VERSION | REPLY, len(payload)) + payload
