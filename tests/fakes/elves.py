# SPDX-License-Identifier: Apache-2.0
"""ELF files made by hand, with just the headers that say what a file needs; no compiler."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_BASE = 64 + 3 * 56
_NEEDED, _STRTAB, _SONAME, _RPATH, _STRSZ, _RUNPATH = 1, 5, 14, 15, 10, 29


def make_elf(needed: Sequence[str] = (), *, soname: str = "", runpath: str = "", rpath: str = "",
             interpreter: str = "") -> bytes:
    """A shared object for x86-64: one loadable segment at address 0, a dynamic section, perhaps an interpreter."""
    strings = b"\0"
    tags: list[tuple[int, int]] = []
    for tag, texts in ((_NEEDED, needed), (_SONAME, (soname,)), (_RUNPATH, (runpath,)), (_RPATH, (rpath,))):
        for text in filter(None, texts):
            tags.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    name = interpreter.encode() + b"\0" if interpreter else b""
    strings_at = _BASE + len(name)
    tags += [(_STRTAB, strings_at), (_STRSZ, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    dynamic_at = strings_at + len(strings)
    size = dynamic_at + len(dynamic)
    segments = [_segment(1, 0, size), _segment(2, dynamic_at, len(dynamic)),
                _segment(3, _BASE, len(name)) if name else _segment(0, 0, 0)]
    head = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    return head + b"".join(segments) + name + strings + dynamic


def _segment(kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 4, offset, offset, offset, size, size, 8)


def with_versions(elf: bytes, *, needs: Mapping[str, Sequence[str]] | None = None, defines: Sequence[str] = (),
                  weak: bool = False) -> bytes:
    """The same with sections that say which symbol versions it needs of its libraries, and which it defines itself."""
    strings = bytearray(b"\0.dynstr\0.gnu.version_r\0.gnu.version_d\0")
    rows = _version_needs(needs or {}, strings, 2 if weak else 0)
    own = _version_definitions(defines, strings)
    at = len(elf)
    sections = [(1, 3, at + len(rows) + len(own), len(strings), 0, 0)]
    sections += [(9, 0x6FFFFFFE, at, len(rows), 1, len(needs))] if needs else []
    sections += [(24, 0x6FFFFFFD, at + len(rows), len(own), 1, len(defines))] if defines else []
    table = bytes(64) + b"".join(struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, place, size, link, info, 1, 0)
                                 for name, kind, place, size, link, info in sections)
    body = rows + own + bytes(strings)
    head = bytearray(elf)
    struct.pack_into("<Q", head, 40, at + len(body))
    struct.pack_into("<HHH", head, 58, 64, len(sections) + 1, 1)
    return bytes(head) + body + table


def _add(strings: bytearray, text: str) -> int:
    strings += text.encode() + b"\0"
    return len(strings) - len(text) - 1


def _version_needs(needs: Mapping[str, Sequence[str]], strings: bytearray, flags: int) -> bytes:
    rows = b""
    for number, (library, versions) in enumerate(needs.items(), start=1):
        size = 16 + 16 * len(versions)
        rows += struct.pack("<HHIII", 1, len(versions), _add(strings, library), 16, size if number < len(needs) else 0)
        for index, version in enumerate(versions, start=1):
            rows += struct.pack("<IHHII", 0, flags, index + 1, _add(strings, version),
                                16 if index < len(versions) else 0)
    return rows


def _version_definitions(defines: Sequence[str], strings: bytearray) -> bytes:
    return b"".join(
        struct.pack("<HHHHIII", 1, 0, index, 1, 0, 20, 28 if index < len(defines) else 0)
        + struct.pack("<II", _add(strings, version), 0) for index, version in enumerate(defines, start=1))


def make_module(name: str, depends: str = "", softdeps: Sequence[str] = ()) -> bytes:
    """A relocatable object with a .modinfo section, as far as a kernel module is read here."""
    soft = "".join(f"softdep={line}\0" for line in softdeps)
    info = f"license=GPL\0depends={depends}\0{soft}name={name}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    head = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64 + len(info) + len(names), 0, 64, 0, 0, 64, 3, 2)
    sections = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(info), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    return head + info + names + sections


def make_traced_module(*, machine: int = 62, calls: Sequence[tuple[str, int]] = (), table: bool = True) -> bytes:
    """A relocatable object with a function of five bytes for each of `calls`: the symbol that it calls, and how."""
    symbols = ("", *sorted({name for name, _ in calls}))
    strings = bytearray(b"\0")
    rows = b"".join(struct.pack("<IBBHQQ", _add(strings, name) if name else 0, 0, 0, 0, 0, 0) for name in symbols)
    relocations = b"".join(struct.pack("<QIIq", 5 * number + 1, kind, symbols.index(name), -4)
                           for number, (name, kind) in enumerate(calls))
    places = bytes(8 * len(calls))
    parts: list[tuple[str, int, int, bytes, int, int]] = [
        (".text", 1, 2 | 4, bytes.fromhex("e800000000") * len(calls), 0, 0),
        (".rela.text", 4, 0, relocations, 3, 1),
        (".symtab", 2, 0, rows, 4, 0),
        (".strtab", 3, 0, bytes(strings), 0, 0),
        *([("__mcount_loc", 1, 2, places, 0, 0), (".rela__mcount_loc", 4, 0, relocations, 3, 5)] if table else []),
    ]
    names = bytearray(b"\0")
    heads, body = bytes(64), b""
    for name, kind, flags, data, link, info in parts:
        heads += struct.pack("<IIQQQQIIQQ", _add(names, name), kind, flags, 0, 64 + len(body), len(data), link, info, 1,
                             24 if kind in (2, 4) else 0)
        body += data
    heads += struct.pack("<IIQQQQIIQQ", _add(names, ".shstrtab"), 3, 0, 0, 64 + len(body), len(names), 0, 0, 1, 0)
    body += bytes(names)
    return b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIQQQIHHHHHH", 1, machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(parts) + 2, len(parts) + 1) + body + heads
