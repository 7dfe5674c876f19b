# SPDX-License-Identifier: Apache-2.0
"""ELF files with the compat note of CUDA libraries, built byte by byte for both word sizes and byte orders."""

from __future__ import annotations

import json
import struct

from guest_cdi.hooks.elf_note import SECTION

PAYLOAD = json.dumps({"Format": 1, "CUDA Version": "12.9", "Driver": [535, 575], "Device": [1, 2]}).encode()


def note(payload: bytes = PAYLOAD, owner: bytes = b"NVIDIA Corporation\0", order: str = "<", align: int = 4) -> bytes:
    pad = -len(owner) % align
    return struct.pack(order + "III", len(owner), len(payload), 1) + owner + b"\0" * pad + payload


def elf(content: bytes | None = None, *, bits: int = 64, order: str = "<", kind: int = 7, align: int = 4,
        name: bytes = SECTION) -> bytes:
    """An ELF file with a null section, perhaps the note, and the table of section names."""
    names = b"\0.shstrtab\0" + name + b"\0"
    body = content if content is not None else note(order=order, align=align)
    head = 64 if bits == 64 else 52
    ident = b"\x7fELF" + bytes((2 if bits == 64 else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    places = [(0, 0, 0, 0, 0), (11, kind, head, len(body), align), (1, 3, head + len(body), len(names), 1)]
    start = head + len(body) + len(names)
    word = "Q" if bits == 64 else "I"
    form = order + ("IIQQQQIIQQ" if bits == 64 else "10I")
    header = struct.pack(order + "HHI" + word * 3 + "IHHHHHH", 3, 62, 1, 0, 0, start, 0, head, 0, 0,
                         struct.calcsize(form), len(places), 2)
    table = b"".join(struct.pack(form, n, k, 0, 0, at, size, 0, 0, al, 0) for n, k, at, size, al in places)
    return ident + header + body + names + table
