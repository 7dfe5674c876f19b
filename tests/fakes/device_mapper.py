# SPDX-License-Identifier: Apache-2.0
"""A device-mapper that speaks the kernel's ioctl interface, and a guest with disks behind it.

Structures are packed and judged here by offsets of their own, not with the code under test.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EBUSY, EINVAL, EIO, ENXIO

from fakes.modules import RELEASE
from fakes.system import FakeSystem, bare_guest
from nvrc.params.extension import VerityParams

CREATE, REMOVE, RESUME, LOAD, STATUS = 3, 4, 6, 9, 12
NAMES = {CREATE: "create", REMOVE: "remove", RESUME: "resume", LOAD: "load", STATUS: "status"}
SIZE = 312
EROFS = bytes(1024) + bytes.fromhex("e2e1f5e0") + bytes(3068)


@dataclass
class Mapped:
    number: int
    loaded: str = ""
    active: str = ""


@dataclass
class FakeMapper:
    """`tables`: every table that was put to work. `shown` may change what a table is printed as."""

    devices: dict[str, Mapped] = field(default_factory=dict)
    fail: dict[str, OSError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    shown: Callable[[str], str] = str
    status_flags: int = 1 << 0 | 1 << 5
    start: int = SIZE
    targets: int = 1

    def __call__(self, request: int, data: bytes) -> bytes:
        assert request >> 8 == 3 << 22 | SIZE << 8 | 0xFD
        command = request & 0xFF
        version, size, data_start = struct.unpack_from("=3I", data), *struct.unpack_from("=2I", data, 12)
        assert version == (4, 0, 0) and size == len(data) and data_start == SIZE
        name = data[48:176].rstrip(b"\0").decode()
        flags, = struct.unpack_from("=I", data, 28)
        self.calls.append(f"{NAMES[command]} {name}")
        if error := self.fail.get(NAMES[command]):
            raise error
        if command == CREATE:
            if name in self.devices:
                raise OSError(EBUSY, "Device or resource busy")
            self.devices[name] = Mapped(len(self.devices))
        elif name not in self.devices:
            raise OSError(ENXIO, "No such device or address")
        elif command == REMOVE:
            del self.devices[name]
            return data
        elif command == LOAD:
            assert flags == 1, "read-only"
            self.devices[name].loaded = self._table(data)
        elif command == RESUME:
            self.devices[name].active = self.devices[name].loaded
            self.tables.append(self.devices[name].active)
        return self._reply(data, self.devices[name], command)

    def _table(self, data: bytes) -> str:
        count, = struct.unpack_from("=I", data, 20)
        start, length, status, following, kind = struct.unpack_from("=QQiI16s", data, SIZE)
        params = data[SIZE + 40:SIZE + following].rstrip(b"\0")
        assert (count, start, status, following % 8) == (1, 0, 0, 0) and b"\0" not in params
        if kind.rstrip(b"\0") != b"verity":
            raise OSError(EINVAL, "Invalid argument")
        return f"{length} verity {params.decode()}"

    def _reply(self, data: bytes, device: Mapped, command: int) -> bytes:
        out = bytearray(data)
        struct.pack_into("=Q", out, 40, os.makedev(253, device.number))
        if command == STATUS:
            length, kind, params = self.shown(device.active).split(" ", 2)
            struct.pack_into("=3I", out, 16, self.start, self.targets, 0)
            struct.pack_into("=I", out, 28, self.status_flags)
            if self.start == SIZE:
                text = params.encode("latin-1")[:12000] + b"\0"
                struct.pack_into("=QQiI16s", out, SIZE, 0, int(length), 0, 40 + len(text), kind.encode())
                out[SIZE + 40:SIZE + 40 + len(text)] = text
        return bytes(out)


class ExtensionGuest(FakeSystem):
    """Disks in sysfs; what is read through a mapping is the image that belongs to its root hash, or an I/O error."""

    mapper: FakeMapper
    images: dict[str, bytes]

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        if not path.startswith("/dev/mapper/extension-"):
            return super().read(path, limit)
        words = self.mapper.devices[path.rpartition("/")[2]].active.split()
        for root_hash, image in self.images.items():
            if root_hash in words:
                return image[:limit]
        raise OSError(EIO, "Input/output error")

    def add_disk(self, block: str, serial: str | bytes, *parts: int, blocks: int = 2048) -> None:
        """A disk with partitions of so many 512-byte blocks."""
        raw = serial if isinstance(serial, bytes) else serial.encode()
        self.put(f"/sys/block/{block}/serial", raw + b"\n")
        self.put(f"/sys/block/{block}/size", f"{blocks}\n")
        self.put(f"/sys/block/{block}/queue/rotational", "1\n")
        for number in parts:
            self.add_partition(block, number)

    def add_partition(self, block: str, number: int, blocks: int = 2048) -> None:
        folder = f"/sys/block/{block}/{block}{number}"
        disk = ord(block[-1]) - ord("a")
        for name, value in (("partition", number), ("size", blocks), ("dev", f"252:{16 * disk + number}")):
            self.put(f"{folder}/{name}", f"{value}\n")


def extension_guest(root: str) -> ExtensionGuest:
    bare_guest(root)
    guest = ExtensionGuest(root)
    guest.mapper, guest.images = FakeMapper(), {}
    guest.devices["/dev/mapper/control"] = guest.mapper
    guest.put("/proc/sys/kernel/osrelease", f"{RELEASE}\n")
    return guest


def params(root_hash: str = "ab" * 32, **changed: int) -> VerityParams:
    items = {"data_blocks": 200, "data_block_size": 4096, "hash_block_size": 4096} | changed
    return VerityParams(root_hash=root_hash, salt="5a", **items)
