# SPDX-License-Identifier: Apache-2.0
"""Lines of a stream of any length, in memory that does not grow with it."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from guest_cdi.lean.light import BinaryIO

LINE_LIMIT = 64 << 10  # a host's line around a console line is a few KiB; the rest of a longer one is dropped
CHUNK = 1 << 16
MOST_FOLDED = 64
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOLDABLE = ("message: ", "note: ")


def split_lines(stream: BinaryIO, head: bytes = b"") -> Iterator[str]:
    """Text lines; bytes that are no UTF-8 become replacement characters. `head`: what was read already."""
    # Not splitlines: a form feed in somebody's line must not make another line of its rest.
    kept, is_cut = b"", False
    for chunk in _chunks(stream, head):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield _text(kept if is_cut else kept + line)
            kept, is_cut = b"", False
        if not is_cut:
            kept += rest
            is_cut = len(kept) > LINE_LIMIT
            kept = kept[:LINE_LIMIT]
    if kept:
        yield _text(kept)


def _chunks(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    """Pieces of UTF-8: some shells of other systems redirect as UTF-16, and put marks in front."""
    chunk = head or stream.read(CHUNK)
    decoder = codecs.getincrementaldecoder("utf-16")("replace") if chunk[:2] in _UTF_16 else None
    chunk = chunk.removeprefix(codecs.BOM_UTF8)
    while chunk:
        yield decoder.decode(chunk).encode(errors="replace") if decoder else chunk
        chunk = stream.read(CHUNK)


def unfold(lines: Iterable[str]) -> Iterator[str]:
    """A message that YAML has spread over lines, as one line again."""
    held, indent, count = "", 0, 0
    for line in lines:
        depth = len(line) - len(line.lstrip(" "))
        if held and depth > indent and line.strip() and count < MOST_FOLDED:
            held, count = f"{held} {line.strip()}", count + 1
            continue
        if held:
            yield held
        held, indent, count = (line, depth, 0) if line.lstrip(" -").startswith(_FOLDABLE) else ("", 0, 0)
        if not held:
            yield line
    if held:
        yield held


def _text(line: bytes) -> str:
    return line[:LINE_LIMIT].decode(errors="replace").rstrip("\r")
