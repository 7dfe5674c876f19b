# SPDX-License-Identifier: Apache-2.0
"""Tar archives by their blocks, also such as no program writes."""

from __future__ import annotations

import tarfile

END = bytes(2 * tarfile.BLOCKSIZE)


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info.tobuf(tarfile.GNU_FORMAT)


def block(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, kind, len(data)) + block(data)


def record(name: str, value: str) -> bytes:
    """As pax(1) has it: the length counts its own digits."""
    rest = f" {name}={value}\n".encode()
    size = len(rest) + 1
    while len(str(size)) + len(rest) > size:
        size += 1
    return f"{size}".encode() + rest


def pax(*rows: tuple[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    return entry("pax", b"".join(record(*row) for row in rows), kind)


def gnu(name: str, kind: bytes = tarfile.GNUTYPE_LONGNAME) -> bytes:
    return entry("././@LongLink", name.encode() + b"\0", kind)


def old_sparse() -> bytes:
    """Of holes without an end: each block says that another one follows."""
    head = bytearray(header("holes", tarfile.GNUTYPE_SPARSE, 100))
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + (b"00000000001\0" * 42 + b"\1").ljust(tarfile.BLOCKSIZE, b"\0") * 64
