# SPDX-License-Identifier: Apache-2.0
"""An EROFS image changed so that it unpacks to far more than was packed; fs/erofs/erofs_fs.h of Linux."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SUPER, _ROOT, _META = 1024, 14, 40
_BLOCK, _SLOT, _ENTRY = 4096, 32, struct.Struct("<QHBB")
_INLINE = 2


@dataclass(frozen=True, slots=True)
class _Name:
    at: int
    inode: int
    name: bytes


def fold(image: bytes) -> bytes:
    """Every name that begins with `x` leads to the folder `d` beside it, as far as there are such."""
    data = bytearray(image)
    inode, = struct.unpack_from("<H", data, _SUPER + _ROOT)
    while True:
        rows = tuple(_list(data, inode))
        found = next((row.inode for row in rows if row.name == b"d"), None)
        if found is None:
            return bytes(data)
        for row in rows:
            if row.name.startswith(b"x"):
                struct.pack_into("<Q", data, row.at, found)
        inode = found


def _list(data: bytes | bytearray, number: int) -> Iterator[_Name]:
    """Of a folder of one block."""
    meta, = struct.unpack_from("<I", data, _SUPER + _META)
    inode = meta * _BLOCK + number * _SLOT
    form, attributes = struct.unpack_from("<HH", data, inode)
    is_long, layout = form & 1, form >> 1 & 7
    size, = struct.unpack_from("<Q" if is_long else "<I", data, inode + 8)
    block, = struct.unpack_from("<I", data, inode + 16)
    tail = inode + (64 if is_long else 32) + (12 + 4 * (attributes - 1) if attributes else 0)
    start = tail if layout == _INLINE else block * _BLOCK
    count = struct.unpack_from("<H", data, start + 8)[0] // _ENTRY.size
    ends = [*(_ENTRY.unpack_from(data, start + _ENTRY.size * row)[1] for row in range(1, count)), size]
    for row, end in enumerate(ends):
        at = start + _ENTRY.size * row
        target, name, *_ = _ENTRY.unpack_from(data, at)
        yield _Name(at, target, bytes(data[start + name:start + end]).rstrip(b"\0"))
