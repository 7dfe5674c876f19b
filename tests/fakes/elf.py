# SPDX-License-Identifier: Apache-2.0
"""Writes the smallest shared objects that a loader would still recognise, and libraries' ld.so.cache."""

from __future__ import annotations

import struct
from collections.abc import Iterable

DT_STRTAB, DT_STRSZ, DT_SONAME, DT_NULL = 5, 10, 14, 0


def shared_object(*sonames: str | bytes, bits: int = 64, order: str = "<", segments: bool = True,
                  sections: bool = True) -> bytes:
    """A shared object with these SONAMEs (mostly one), found by segments, by sections or by both."""
    wide = bits == 64
    word = "Q" if wide else "I"
    header_size, program_size, section_size = (64, 56, 64) if wide else (52, 32, 40)
    strings = b"\0"
    offsets = []
    for soname in sonames:
        offsets.append(len(strings))
        strings += (soname if isinstance(soname, bytes) else soname.encode()) + b"\0"
    strings_at = header_size + 2 * program_size
    strings += b"\0" * (-len(strings) % 8)
    dynamic_at = strings_at + len(strings)
    entries = [*((DT_SONAME, offset) for offset in offsets), (DT_STRTAB, strings_at), (DT_STRSZ, len(strings)),
               (DT_NULL, 0)]
    dynamic = b"".join(struct.pack(f"{order}2{word}", *entry) for entry in entries)
    sections_at = dynamic_at + len(dynamic)
    total = sections_at + (3 * section_size if sections else 0)
    header = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + b"\0" * 9
    header += struct.pack(f"{order}HHI3{word}I6H", 3, 62 if wide else 3, 1, 0, header_size if segments else 0,
                          sections_at if sections else 0, 0, header_size, program_size, 2 if segments else 0,
                          section_size, 3 if sections else 0, 0)
    programs = (_program(order, wide, 1, 0, total), _program(order, wide, 2, dynamic_at, len(dynamic)))
    body = header + b"".join(programs) + strings + dynamic
    if sections:
        body += (b"\0" * section_size + _section(order, word, (6, dynamic_at, len(dynamic), 2))
                 + _section(order, word, (3, strings_at, len(strings), 0)))
    return body


def _program(order: str, wide: bool, kind: int, offset: int, size: int) -> bytes:
    if wide:
        return struct.pack(f"{order}II6Q", kind, 5, offset, offset, offset, size, size, 8)
    return struct.pack(f"{order}8I", kind, offset, offset, offset, size, size, 5, 4)


def _section(order: str, word: str, place: tuple[int, int, int, int]) -> bytes:
    kind, offset, size, link = place
    return struct.pack(f"{order}II4{word}II2{word}", 0, kind, 0, offset, offset, size, link, 0, 8, 16)


def library_cache(paths: Iterable[str], *, flags: int = 0x0303, old: bool = False) -> bytes:
    """ld.so.cache with these libraries, in the format of glibc 2.2 and later, behind the older table if `old`."""
    listed = list(paths)
    texts = b""
    entries = []
    start = 48 + 24 * len(listed)
    for path in listed:
        raw = path.encode(errors="surrogateescape")
        name = raw.rpartition(b"/")[2]
        entries.append(struct.pack("<iIIIQ", flags, start + len(texts), start + len(texts) + len(name) + 1, 0, 0))
        texts += name + b"\0" + raw + b"\0"
    table = b"glibc-ld.so.cache1.1" + struct.pack("<II5I", len(listed), len(texts), 0, 0, 0, 0, 0)
    prefix = b"ld.so-1.7.0\0" + struct.pack("<I", 1) + b"\0" * 12 + b"\0" * 4 if old else b""
    return prefix + table + b"".join(entries) + texts
