# SPDX-License-Identifier: Apache-2.0
"""Memory that a guest shares, and the split rings in it (virtio 1.2, 2.7), from the side of the device.

Neither indirect descriptors nor suppressed notifications. What a guest says is checked before it is used; what makes
no sense raises ProtocolError.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_DESCRIPTOR, _U16, _USED = struct.Struct("<QIHH"), struct.Struct("<H"), struct.Struct("<II")
NEXT, WRITE = 1, 2


class ProtocolError(Exception):
    """The other side says what cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A piece of the guest's memory: where the guest has it, where QEMU has it, and where it is in `data`."""

    guest: int
    size: int
    host: int
    shift: int
    data: mmap.mmap


class Memory:
    def __init__(self, regions: Sequence[Region] = ()) -> None:
        self._regions = tuple(regions)

    def by_guest(self, address: int, size: int) -> tuple[mmap.mmap, int]:
        return self._find(address, size, lambda region: region.guest)

    def by_host(self, address: int, size: int) -> tuple[mmap.mmap, int]:
        return self._find(address, size, lambda region: region.host)

    def _find(self, address: int, size: int, start: Callable[[Region], int]) -> tuple[mmap.mmap, int]:
        for region in self._regions:
            at = address - start(region)
            if at >= 0 and at + size <= region.size:
                return region.data, at + region.shift
        raise ProtocolError(f"{size} bytes at {address:#x} are not in the guest's memory")

    def close(self) -> None:
        for region in self._regions:
            region.data.close()
        self._regions = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One request of the guest: descriptors in order, as address, length and whether the device may write there."""

    head: int
    parts: tuple[tuple[int, int, bool], ...]

    def read(self, memory: Memory) -> bytes:
        pieces = []
        for address, size, is_writable in self.parts:
            if not is_writable:
                data, at = memory.by_guest(address, size)
                pieces.append(data[at:at + size])
        return b"".join(pieces)

    @property
    def room(self) -> int:
        return sum(size for _, size, is_writable in self.parts if is_writable)

    def write(self, memory: Memory, content: bytes) -> None:
        for address, size, is_writable in self.parts:
            if is_writable and content:
                data, at = memory.by_guest(address, size)
                piece, content = content[:size], content[size:]
                data[at:at + len(piece)] = piece


@dataclass(slots=True, kw_only=True)
class Ring:
    """A split ring. The order of the writes below is what the guest relies on; x86-64 keeps it."""

    size: int = 0
    descriptors: int = 0
    available: int = 0
    used: int = 0
    next: int = 0
    kick: int = -1
    call: int = -1
    is_enabled: bool = True

    @property
    def is_running(self) -> bool:
        return self.is_enabled and self.kick >= 0 and bool(self.size and self.descriptors)

    def take(self, memory: Memory) -> Chain | None:
        """The guest's next request, if there is one."""
        data, at = memory.by_host(self.available, 4 + 2 * self.size)
        if _U16.unpack_from(data, at + 2)[0] == self.next:
            return None
        (head,) = _U16.unpack_from(data, at + 4 + 2 * (self.next % self.size))
        self.next = (self.next + 1) & 0xFFFF
        return Chain(head=head, parts=tuple(self._walk(memory, head)))

    def _walk(self, memory: Memory, index: int) -> Iterator[tuple[int, int, bool]]:
        data, at = memory.by_host(self.descriptors, _DESCRIPTOR.size * self.size)
        for _ in range(self.size):
            if index >= self.size:
                raise ProtocolError(f"descriptor {index} of a ring of {self.size}")
            address, size, flags, following = _DESCRIPTOR.unpack_from(data, at + _DESCRIPTOR.size * index)
            yield address, size, bool(flags & WRITE)
            if not flags & NEXT:
                return
            index = following
        raise ProtocolError("a chain of descriptors without an end")

    def give_back(self, memory: Memory, chain: Chain, written: int = 0) -> None:
        data, at = memory.by_host(self.used, 4 + _USED.size * self.size)
        (index,) = _U16.unpack_from(data, at + 2)
        _USED.pack_into(data, at + 4 + _USED.size * (index % self.size), chain.head, written)
        _U16.pack_into(data, at + 2, (index + 1) & 0xFFFF)

    def signal(self) -> None:
        if self.call >= 0:
            os.eventfd_write(self.call, 1)
