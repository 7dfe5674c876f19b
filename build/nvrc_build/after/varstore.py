# SPDX-License-Identifier: Apache-2.0
"""A key into `db` of an OVMF variable store (OVMF_VARS*.fd), so that a guest's kernel trusts what it signed.

Only appends: a variable that is replaced is marked deleted, as the firmware itself does, and nothing else is touched.
Layout: edk2 VariableFormat.h (authenticated variables), UEFI 2.10 section 32.4.1 (signature lists). The store is
the host's: whoever may write it decides what the guest trusts. Keys in `db` do not turn Secure Boot on.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from nvrc_build.ground.errors import BuildError

_REMEDY = "give a copy of OVMF_VARS*.fd, the part of OVMF that keeps variables"
_VOLUME = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le
_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
_VENDOR = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f").bytes_le
_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
# Whose keys these are in a signature list; any number that stays the same.
OWNER = uuid.UUID("6f1f7ab5-2c54-4f43-9f0d-6b1f0e0c7d8a").bytes_le
_NAME = "db\0".encode("utf-16-le")
# non-volatile, boot services, run time, time-based authenticated write access
_ATTRIBUTES = 0x27
_START, _ADDED, _DELETED = 0x55AA, 0x3F, 0xFD
# Year, month and day of the time stamp: 2025-01-01, as everywhere in an image.
_WHEN = struct.pack("<HBB12x", 2025, 1, 1)
_HEADER = struct.Struct("<HBxIQ16sIII16s")
_STORE_HEADER = struct.Struct("<16sIBB6x")
_LIST = struct.Struct("<16sIII")


@dataclass(frozen=True, slots=True)
class _Variable:
    at: int
    state: int
    vendor: bytes
    name: bytes
    data: bytes

    @property
    def is_db(self) -> bool:
        # A write that was cut short leaves the old value "in deleted transition" (bit 0 cleared): it still counts.
        return self.state | 1 == _ADDED and (self.vendor, self.name) == (_VENDOR, _NAME)


def enrol(store: bytes, certificate: bytes) -> bytes:
    """The store with the certificate (DER) in `db`; the same bytes when it is there already."""
    begin, end = _bounds(store)
    variables = tuple(_walk(store, begin, end))
    free = _align(variables[-1].at + _size(variables[-1])) if variables else begin
    old = next((row for row in variables if row.is_db), None)
    data = old.data if old is not None else b""
    if certificate in certificates(store):
        return store
    data += _LIST.pack(_X509, _LIST.size + 16 + len(certificate), 0, 16 + len(certificate)) + OWNER + certificate
    fresh = _HEADER.pack(_START, _ADDED, _ATTRIBUTES, 0, _WHEN, 0, len(_NAME), len(data), _VENDOR) + _NAME + data
    if store[free:free + len(fresh)] != b"\xff" * len(fresh) or free + len(fresh) > end:
        raise BuildError(f"the variable store has no room for {len(fresh)} bytes more", "give a store that is empty")
    changed = bytearray(store)
    if old is not None:
        changed[old.at + 2] &= _DELETED
    changed[free:free + len(fresh)] = fresh
    return bytes(changed)


def certificates(store: bytes) -> tuple[bytes, ...]:
    """What `db` holds now, in order."""
    found = next((row for row in _walk(store, *_bounds(store)) if row.is_db), None)
    return tuple(_signatures(found.data)) if found is not None else ()


def _bounds(store: bytes) -> tuple[int, int]:
    """Where variables begin and end."""
    if len(store) < 0x100 or store[16:32] != _VOLUME or store[40:44] != b"_FVH":
        raise BuildError("this is not a variable store of OVMF", _REMEDY)
    header = min(int.from_bytes(store[48:50], "little"), len(store) - _STORE_HEADER.size)
    kind, size, form, state = _STORE_HEADER.unpack_from(store, header)
    if kind != _STORE or (form, state) != (0x5A, 0xFE) or header + size > len(store):
        raise BuildError("the variable store is damaged, or does not keep authenticated variables", _REMEDY)
    return header + _STORE_HEADER.size, header + size


def _walk(store: bytes, begin: int, end: int) -> Iterator[_Variable]:
    at = begin
    while at + _HEADER.size <= end:
        start, state, _, _, _, _, name_size, data_size, vendor = _HEADER.unpack_from(store, at)
        if start == 0xFFFF:
            return
        name_at = at + _HEADER.size
        data_at = name_at + name_size
        if start != _START or data_at + data_size > end:
            raise BuildError(f"the variable store is damaged at byte {at}", _REMEDY)
        row = _Variable(at, state, vendor, store[name_at:data_at], store[data_at:data_at + data_size])
        yield row
        at = _align(at + _size(row))


def _size(row: _Variable) -> int:
    return _HEADER.size + len(row.name) + len(row.data)


def _align(at: int) -> int:
    return (at + 3) & ~3


def _signatures(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _LIST.size <= len(data):
        kind, size, header, each = _LIST.unpack_from(data, at)
        first, end = at + _LIST.size + header, at + size
        if size <= _LIST.size or end > len(data) or each <= 16:
            raise BuildError("db in the variable store is damaged", _REMEDY)
        if kind == _X509:
            yield from (data[entry + 16:entry + each] for entry in range(first, end, each))
        at = end
