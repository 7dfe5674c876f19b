# SPDX-License-Identifier: Apache-2.0
"""Reads the SONAME of a shared object, and whether the loader can be trusted with it, with a handful of bounded reads.

Follows elf(5). The dynamic segment is believed first, as the loader does; an object without program headers is read
through its section headers. Every offset and count comes from a file that may be truncated or hostile, so each is
checked against a bound before it is used.
"""

from __future__ import annotations

import os
import struct

from guest_cdi.lean.light import Iterator, NamedTuple

FIRST_READ = 4096               # holds the ELF header and, in every linker's output, the program headers
MAX_HEADERS = 4096
MAX_DYNAMIC_BYTES = 1 << 16
MAX_NAME = 255                  # NAME_MAX: a longer SONAME cannot be a file

PT_LOAD, PT_DYNAMIC = 1, 2
SHT_DYNAMIC = 6
DT_NULL, DT_STRTAB, DT_SYMTAB, DT_SONAME = 0, 5, 6, 14


class ElfError(Exception):
    """Why a file is not a usable shared object; the caller knows its name."""


class Layout(NamedTuple):
    """Where the fields are in a class of ELF file; offsets are in bytes from the start of each record."""

    word: str                   # struct letter of an address
    header: int                 # size of the ELF header
    phoff: int
    shoff: int
    counts: int                 # phentsize, phnum, shentsize, shnum
    program: int                # size of a program header
    p_offset: int
    p_vaddr: int
    p_filesz: int
    section: int                # size of a section header
    sh_offset: int              # followed by sh_size
    sh_link: int


LAYOUTS = {
    1: Layout("I", 52, 28, 32, 42, 32, 4, 8, 16, 40, 16, 24),
    2: Layout("Q", 64, 32, 40, 54, 56, 8, 16, 32, 64, 24, 40),
}


class _File:
    """An open ELF file: its layout, byte order and bounded reads."""

    __slots__ = ("_descriptor", "_head", "layout", "order")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._head = _pread(descriptor, FIRST_READ, 0)
        if self._head[:4] != b"\x7fELF":
            raise ElfError("it is not an ELF file")
        if len(self._head) < 64:
            raise ElfError("it is truncated")
        layout, order = LAYOUTS.get(self._head[4]), {1: "<", 2: ">"}.get(self._head[5])
        if layout is None or order is None:
            raise ElfError("its ELF class or byte order is unknown")
        self.layout, self.order = layout, order

    def read(self, offset: int, size: int) -> bytes:
        end = offset + size
        if end <= len(self._head):
            return self._head[offset:end]
        data = _pread(self._descriptor, size, offset)
        if len(data) < size:
            raise ElfError("it is truncated")
        return data

    def word(self, data: bytes, offset: int) -> int:
        value: int = struct.unpack_from(self.order + self.layout.word, data, offset)[0]
        return value

    def half(self, data: bytes, offset: int) -> int:
        value: int = struct.unpack_from(self.order + "H", data, offset)[0]
        return value

    def number(self, data: bytes, offset: int) -> int:
        value: int = struct.unpack_from(self.order + "I", data, offset)[0]
        return value

    def records(self, table_offset_at: int, count_index: int, expected_size: int) -> list[bytes]:
        """The program headers or the section headers, each as its own bytes."""
        layout = self.layout
        table = self.word(self._head, table_offset_at)
        size = self.half(self._head, layout.counts + 4 * count_index)
        count = self.half(self._head, layout.counts + 4 * count_index + 2)
        if not table or not count:
            return []
        if size != expected_size or count > MAX_HEADERS:
            raise ElfError("its header table is malformed")
        data = self.read(table, size * count)
        return [data[start:start + size] for start in range(0, size * count, size)]

    def text(self, offset: int) -> str:
        data = _pread(self._descriptor, MAX_NAME + 1, offset)
        name, terminator, _ = data.partition(b"\0")
        if not terminator:
            raise ElfError("its SONAME has no end")
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise ElfError("its SONAME is not UTF-8") from None
        if "/" in text or text in (".", "..") or not text.isprintable():
            raise ElfError(f"its SONAME {text!r} is not a file name")
        return text


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    except (OSError, OverflowError) as err:
        raise ElfError("it cannot be read where its headers point") from err


def read_soname(descriptor: int) -> str | None:
    """The SONAME of the shared object behind an open file; None when it has none."""
    file = _File(descriptor)
    place = _find_dynamic_segment(file) or _find_dynamic_section(file)
    if place is None:
        return None
    offset, size, strings = place
    names, table = _scan_dynamic(file, offset, size)
    if not names:
        return None
    if len(names) > 1:
        raise ElfError("it has several SONAMEs")
    return file.text(strings.file_offset(table) + names[0])


class _Strings(NamedTuple):
    """Where the string table is in the file: known from its section, or by way of the segment that loads it."""

    fixed: int | None
    loads: tuple[tuple[int, int, int], ...] = ()        # address, size, file offset

    def file_offset(self, address: int | None) -> int:
        if self.fixed is not None:
            return self.fixed
        for start, size, offset in self.loads:
            if address is not None and start <= address < start + size:
                return offset + address - start
        raise ElfError("its string table is in no segment")


def _find_dynamic_segment(file: _File) -> tuple[int, int, _Strings] | None:
    layout = file.layout
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for record in file.records(layout.phoff, 0, layout.program):
        kind = file.number(record, 0)
        offset, size = file.word(record, layout.p_offset), file.word(record, layout.p_filesz)
        if kind == PT_LOAD:
            loads.append((file.word(record, layout.p_vaddr), size, offset))
        elif kind == PT_DYNAMIC:
            dynamic = (offset, size)
    return None if dynamic is None else (*dynamic, _Strings(None, tuple(loads)))


def _find_dynamic_section(file: _File) -> tuple[int, int, _Strings] | None:
    layout = file.layout
    records = file.records(layout.shoff, 1, layout.section)
    step = struct.calcsize(layout.word)
    for record in records:
        if file.number(record, 4) == SHT_DYNAMIC:
            link = file.number(record, layout.sh_link)
            if link >= len(records):
                raise ElfError("its string table is missing")
            strings = _Strings(file.word(records[link], layout.sh_offset))
            return file.word(record, layout.sh_offset), file.word(record, layout.sh_offset + step), strings
    return None


def _scan_dynamic(file: _File, offset: int, size: int) -> tuple[list[int], int | None]:
    names: list[int] = []
    table: int | None = None
    for tag, value in _read_tags(file, offset, size):
        if tag == DT_SONAME:
            names.append(value)
        elif tag == DT_STRTAB:
            table = value
    return names, table


def _read_tags(file: _File, offset: int, size: int) -> Iterator[tuple[int, int]]:
    step = struct.calcsize(file.layout.word) * 2
    if size > MAX_DYNAMIC_BYTES:
        raise ElfError("its dynamic table is too large")
    data = file.read(offset, size - size % step)
    for tag, value in struct.iter_unpack(f"{file.order}2{file.layout.word}", data):
        if tag == DT_NULL:
            return
        yield tag, value


def check_loadable(descriptor: int) -> None:
    """ElfError for a library that would bring the loader down instead of being refused by it.

    The loader maps segments unseen and reads them afterwards, which beyond the end of the file is a SIGBUS; and it
    believes the dynamic table.
    """
    file = _File(descriptor)
    layout, size = file.layout, os.fstat(descriptor).st_size
    records = file.records(layout.phoff, 0, layout.program)
    if any(file.word(record, layout.p_offset) + file.word(record, layout.p_filesz) > size for record in records):
        raise ElfError("it is truncated")
    segment = _find_dynamic_segment(file)
    tags = {tag for tag, _ in _read_tags(file, *segment[:2])} if segment else set()
    if not {DT_SYMTAB, DT_STRTAB} <= tags:
        raise ElfError("it has no symbols")
