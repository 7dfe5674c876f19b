# SPDX-License-Identifier: Apache-2.0
"""Reads ld.so.cache: the 64-bit libraries it lists, in its order.

Format: glibc's sysdeps/generic/dl-cache.h, either alone or behind the older table that libc 5 used. Only consulted
when the usual library directories have nothing. The file may be damaged, so every count and offset is checked.
"""

from __future__ import annotations

import struct

PATH = "/etc/ld.so.cache"
MAX_BYTES = 64 << 20
SHARED = 4

OLD_MAGIC = b"ld.so-1.7.0\0"
OLD_ENTRY_BYTES = 12
MAGIC = b"glibc-ld.so.cache1.1"
HEADER_BYTES = 48
ENTRY = struct.Struct("<iIIIQ")     # flags, name, path, OS version, hardware capabilities

TYPE_MASK, TYPE_ELF = 0x00FF, 0x0001
ARCHITECTURE_MASK = 0xFF00
ARCHITECTURES_64 = frozenset({0x0300, 0x0500, 0x0A00})      # x86-64, ppc64le, aarch64


class CacheError(Exception):
    """Why the cache cannot be used."""


class LibraryCache:
    """A cache whose header has been checked. Entries are unpacked only for a name that occurs in it at all."""

    __slots__ = ("_paths", "_table")

    def __init__(self, data: bytes) -> None:
        self._table = data[_skip_old_table(data):]
        if len(self._table) < HEADER_BYTES or not self._table.startswith(MAGIC):
            raise CacheError("it is not an ld.so.cache of a known version")
        if self._end() > len(self._table):
            raise CacheError("it ends before the entries that it announces")
        self._paths: tuple[str, ...] | None = None

    def paths(self, stem: str) -> tuple[str, ...]:
        """The libraries whose file name starts with `stem`, each once, in file order; CacheError where they lie."""
        if stem.encode() not in self._table:
            return ()
        if self._paths is None:
            self._paths = tuple(dict.fromkeys(self._list()))
        return tuple(path for path in self._paths if path.rpartition("/")[2].startswith(stem))

    def _end(self) -> int:
        return HEADER_BYTES + int.from_bytes(self._table[20:24], "little") * ENTRY.size

    def _list(self) -> list[str]:
        """Entries share few texts: a long one that each of them has would be read as often."""
        found, left = list[str](), SHARED * len(self._table)
        for flags, name, path, _, _ in ENTRY.iter_unpack(self._table[HEADER_BYTES:self._end()]):
            if not _is_64_bit(flags) or self._table[name:name + 1] in (b"", b"\0"):
                continue
            text = _text(self._table, path)
            left -= len(text)
            if left < 0:
                raise CacheError("its entries have more text together than the file")
            if text.startswith("/"):
                found.append(text)
        return found


def _skip_old_table(data: bytes) -> int:
    if not data.startswith(OLD_MAGIC):
        return 0
    header = len(OLD_MAGIC) + 4
    if len(data) < header:
        raise CacheError("it is truncated")
    end = header + int.from_bytes(data[len(OLD_MAGIC):header], "little") * OLD_ENTRY_BYTES
    return end + -end % 8


def _is_64_bit(flags: int) -> bool:
    return flags & TYPE_MASK & TYPE_ELF != 0 and flags & ARCHITECTURE_MASK in ARCHITECTURES_64


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset) if offset < len(table) else -1
    return "" if end < 0 else table[offset:end].decode(errors="surrogateescape")
