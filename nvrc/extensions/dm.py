# SPDX-License-Identifier: Apache-2.0
"""Device-mapper by ioctl on /dev/mapper/control: create, load a table, put it to work, read it back, remove.

Knows no target. One target per device, which is all that dm-verity needs. Follows include/uapi/linux/dm-ioctl.h,
interface version 4; everything here has been in it since 4.0.0.
"""

from __future__ import annotations

import os
import struct

from guest_cdi.lean.light import NamedTuple
from nvrc.machine.system import Kernel

CONTROL = "/dev/mapper/control"
VERSION = (4, 0, 0)

DM_DEV_CREATE, DM_DEV_REMOVE, DM_DEV_SUSPEND, DM_TABLE_LOAD, DM_TABLE_STATUS = 3, 4, 6, 9, 12
DM_READONLY_FLAG, DM_STATUS_TABLE_FLAG, DM_ACTIVE_PRESENT_FLAG, DM_BUFFER_FULL_FLAG = 1 << 0, 1 << 4, 1 << 5, 1 << 8
SECTOR = 512

# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid
HEADER = struct.Struct("=3I2IIiII4xQ128s129s7x")
# struct dm_target_spec: sector_start, length, status, next, target_type; its parameters follow as a C string
TARGET = struct.Struct("=QQiI16s")
_REPLY_BYTES = 16384


class Table(NamedTuple):
    """One target over the whole device."""

    sectors: int
    target: str
    params: str


class DmError(OSError):
    """The device-mapper answered something that this module cannot be told."""


class _Reply(NamedTuple):
    flags: int
    targets: int
    device: int
    data: bytes


def create(control: Kernel, name: str) -> tuple[int, int]:
    """A device without a table; its major and minor. EBUSY when there is one of that name."""
    device = _ask(control, DM_DEV_CREATE, name).device
    return os.major(device), os.minor(device)


def load_table(control: Kernel, name: str, table: Table) -> None:
    """Give a device the table that it gets at the next `activate`; read-only."""
    params = table.params.encode("ascii") + b"\0"
    size = TARGET.size + len(params)
    padding = -size % 8
    spec = TARGET.pack(0, table.sectors, 0, size + padding, table.target.encode("ascii"))
    _ask(control, DM_TABLE_LOAD, name, flags=DM_READONLY_FLAG, targets=1, data=spec + params + bytes(padding))


def activate(control: Kernel, name: str) -> None:
    """Put the loaded table to work, in place of one that works already."""
    _ask(control, DM_DEV_SUSPEND, name)


def read_table(control: Kernel, name: str) -> Table:
    """The table that is at work now."""
    reply = _ask(control, DM_TABLE_STATUS, name, flags=DM_STATUS_TABLE_FLAG)
    if reply.flags & DM_BUFFER_FULL_FLAG:
        raise DmError(0, f"the table of {name} does not fit into {_REPLY_BYTES} bytes")
    if not reply.flags & DM_ACTIVE_PRESENT_FLAG or not reply.flags & DM_READONLY_FLAG or reply.targets != 1:
        raise DmError(0, f"{name} has {reply.targets} active targets, flags {reply.flags:#x}, not a read-only one")
    start, sectors, _, _, kind = TARGET.unpack_from(reply.data)
    if start != 0:
        raise DmError(0, f"the target of {name} begins at sector {start}")
    return Table(sectors, _text(kind), _text(reply.data[TARGET.size:]))


def remove(control: Kernel, name: str) -> None:
    _ask(control, DM_DEV_REMOVE, name)


def request(command: int) -> int:
    """The ioctl's number: _IOWR(0xfd, command, struct dm_ioctl)."""
    return 3 << 30 | HEADER.size << 16 | 0xFD << 8 | command


def _ask(control: Kernel, command: int, name: str, *, flags: int = 0, targets: int = 0, data: bytes = b"") -> _Reply:
    size = max(HEADER.size + len(data), _REPLY_BYTES)
    header = HEADER.pack(*VERSION, size, HEADER.size, targets, 0, flags, 0, 0, name.encode("ascii"), b"")
    reply = control.ioctl(CONTROL, request(command), (header + data).ljust(size, b"\0"))
    _, _, _, _, start, count, _, flags, _, device, _, _ = HEADER.unpack_from(reply)
    if count and not HEADER.size <= start <= len(reply) - TARGET.size:
        raise DmError(0, f"the reply about {name} has its data at {start}, outside of it")
    return _Reply(flags, count, device, reply[start:])


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("ascii", "replace")
