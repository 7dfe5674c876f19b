# SPDX-License-Identifier: Apache-2.0
"""The note in which a CUDA compat library says which driver branches it works with.

The file comes from a container image and may be anything. Every read is bounded, nothing is mapped, and each number
is checked before it is used. None means "no such note"; NoteError means "not an ELF file to believe". Both byte
orders and both word sizes are read, as the reference does.
"""

from __future__ import annotations

import os
import struct

from guest_cdi.lean.jsonvalue import read_json
from guest_cdi.lean.light import NamedTuple

SECTION = b".note.cuda.fwd_compatibility"
OWNER = b"NVIDIA Corporation"
SHT_NOTE = 7
SECTIONS_LIMIT = 4096
NAMES_LIMIT_BYTES = 1 << 20
NOTE_LIMIT_BYTES = 64 << 10
NOTE_HEADER_BYTES = 12


class NoteError(ValueError):
    """The file or its note is malformed; the text says how."""


class CompatNote(NamedTuple):
    cuda_version: str
    driver_branches: tuple[int, ...]


class _Section(NamedTuple):
    name: int
    kind: int
    offset: int
    size: int
    alignment: int


class _Layout(NamedTuple):
    """Where the ELF header and a section header keep what is needed, for one word size."""

    header: str
    section: str


# e_shoff e_flags e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx, which start at 32 or 40
_LAYOUTS = {1: (32, _Layout("IIHHHHHH", "10I")), 2: (40, _Layout("QIHHHHHH", "IIQQQQIIQQ"))}
_ORDERS = {1: "<", 2: ">"}


def read_note(fd: int) -> CompatNote | None:
    found = _find_section(fd)
    if found is None:
        return None
    order, section = found
    return parse_note(_read(fd, section.offset, section.size, NOTE_LIMIT_BYTES), order, section.alignment)


def parse_note(data: bytes, order: str, alignment: int) -> CompatNote | None:
    if len(data) < NOTE_HEADER_BYTES:
        raise NoteError("note is shorter than its header")
    name_size, payload_size, _kind = struct.unpack_from(order + "III", data)
    if not name_size or not payload_size:
        return None
    step = alignment if alignment in (4, 8) else 1
    start = NOTE_HEADER_BYTES + -(-name_size // step) * step
    if data[NOTE_HEADER_BYTES:start].strip(b"\0") != OWNER:
        return None
    return _parse_payload(data[start:start + payload_size].strip(b"\0"))


def _parse_payload(text: bytes) -> CompatNote:
    try:
        payload = read_json(text)
    except ValueError as err:
        raise NoteError(f"note is not JSON: {err}") from err
    if not isinstance(payload, dict):
        raise NoteError("note is not a JSON object")
    version: object = payload.get("CUDA Version") or ""
    branches: object = payload.get("Driver") or []
    if not isinstance(version, str) or not isinstance(branches, list):
        raise NoteError("note has members of the wrong type")
    numbers = tuple(branch for branch in branches if isinstance(branch, int))
    if len(numbers) != len(branches):
        raise NoteError("note has driver branches that are not numbers")
    return CompatNote(version, numbers)


def _find_section(fd: int) -> tuple[str, _Section] | None:
    ident = _read(fd, 0, 16, 16)
    base_and_layout, order = _LAYOUTS.get(ident[4]), _ORDERS.get(ident[5])
    if ident[:4] != b"\x7fELF" or base_and_layout is None or order is None:
        raise NoteError("not an ELF file")
    base, layout = base_and_layout
    header = struct.unpack(order + layout.header, _read(fd, base, struct.calcsize(order + layout.header), 64))
    offset, entry_size, count, names_index = header[0], header[5], header[6], header[7]
    sections = _read_sections(fd, offset, entry_size, count, order + layout.section)
    if not sections:
        return None
    if names_index >= len(sections):
        raise NoteError("section name table is out of range")
    names = sections[names_index]
    text = _read(fd, names.offset, names.size, NAMES_LIMIT_BYTES)
    for section in sections:
        if section.kind == SHT_NOTE and text[section.name:section.name + len(SECTION) + 1] == SECTION + b"\0":
            return order, section
    return None


def _read_sections(fd: int, offset: int, entry_size: int, count: int, form: str) -> list[_Section]:
    size = struct.calcsize(form)
    if not count:
        return []
    if entry_size != size or count > SECTIONS_LIMIT:
        raise NoteError("section table has an impossible shape")
    table = _read(fd, offset, size * count, size * SECTIONS_LIMIT)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    return [_Section(row[0], row[1], row[4], row[5], row[8]) for row in struct.iter_unpack(form, table)]


def _read(fd: int, offset: int, size: int, limit_bytes: int) -> bytes:
    if size > limit_bytes or offset > 1 << 62:
        raise NoteError("a part of the file has an impossible size or place")
    data = os.pread(fd, size, offset)
    if len(data) < size:
        raise NoteError("file is truncated")
    return data
