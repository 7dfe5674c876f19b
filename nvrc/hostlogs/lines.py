# SPDX-License-Identifier: Apache-2.0
"""Lines of a stream of any length, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator

from guest_cdi.lean.light import BinaryIO

LINE_LIMIT = 64 << 10  # a host's line around a console line is a few KiB; the rest of a longer one is dropped
CHUNK = 1 << 16


def split_lines(stream: BinaryIO, head: bytes = b"") -> Iterator[str]:
    """Text lines; bytes that are no UTF-8 become replacement characters. `head`: what was read already."""
    # Not splitlines: a form feed in somebody's line must not make another line of its rest.
    kept, is_cut = b"", False
    chunk = head or stream.read(CHUNK)
    while chunk:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield _text(kept if is_cut else kept + line)
            kept, is_cut = b"", False
        if not is_cut:
            kept += rest
            is_cut = len(kept) > LINE_LIMIT
            kept = kept[:LINE_LIMIT]
        chunk = stream.read(CHUNK)
    if kept:
        yield _text(kept)


def _text(line: bytes) -> str:
    return line[:LINE_LIMIT].decode(errors="replace").rstrip("\r")
