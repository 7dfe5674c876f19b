# SPDX-License-Identifier: Apache-2.0
"""Lines of a stream of any length, in memory that does not grow with it."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from collections.abc import Iterable, Iterator

from guest_cdi.lean.light import BinaryIO
from nvrc.hostlogs.unwrap import OF_A_CONTAINER, member_text

LINE_LIMIT = 64 << 10  # a host's line around a console line is a few KiB; the rest of a longer one is dropped
CHUNK = 1 << 16
MOST_FOLDED = 64
_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOLDABLE = ("message: ", "note: ", '"message": ', '"note": ')
_FATAL, _REFUSAL, _RPC = "nvrc: FATAL code=", "guest init: E_", "rpc error: code = "
_TERMINATED = re.compile(r' *"?terminated"? ?: ?\{?\s*')  # of a container's state, as kubectl prints a pod
_ENDS = ("...", '"', "'", "}", ": unknown")
# A line that begins so goes on with no other.
_OF_ITS_OWN = re.compile(r"\s*(?:Events:|Normal |Warning |<?\d+>|\[ *\d+\.\d+\]|nvrc: |[A-Z][\w -]{0,30}: {2,}|"
                         r"(?:time|level)=|\d{4}-\d\d-\d\d|[A-Z][a-z]{2} [ \d]\d |[{}\]-])")
MOST_JOINED = 12


def unpack(stream: io.BufferedReader) -> io.BufferedReader:
    """What a log holds that was packed when it was rotated; another is as it is."""
    return io.BufferedReader(gzip.GzipFile(fileobj=stream)) if stream.peek()[:2] == _GZIP else stream


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


def rejoin(lines: Iterable[str]) -> Iterator[str]:
    """A sentence of PID 1 that a terminal or a page cut at its width, as one line again."""
    held, before, last, count = "", 0, 0, 0
    for line in lines:
        if held and count < MOST_JOINED and line.strip() and not _OF_ITS_OWN.match(line):
            # Two pieces of one length were cut at that, inside a word maybe; otherwise a piece ends with a word.
            held, count = held + ("" if last in (before, len(line)) else " ") + line, count + 1
        else:
            yield from (held,) if held else ()
            held, count = line, 0
        before, last = last, len(line)
        if not _is_begun(held):
            yield held
            held = ""
    yield from (held,) if held else ()


def _is_begun(line: str) -> bool:
    """Whether a verdict's quotation, or the hint of a refusal, does not end on the line."""
    head, found, rest = line.partition(_FATAL)
    if found:
        return '"' not in head and rest.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 1
    _, found, rest = line.partition(_REFUSAL)
    if not found and _RPC not in line:
        return False
    return ")" not in rest.partition("(hint: ")[2] and not line.rstrip().endswith(_ENDS)


def unfold(lines: Iterable[str]) -> Iterator[str]:
    """A message that YAML has spread over lines, as one line again."""
    held, indent, count = "", 0, 0
    for line in lines:
        depth = len(line) - len(line.lstrip(" "))
        if held and depth > indent and line.strip() and count < MOST_FOLDED:
            held, count = _continue(held, line.strip()), count + 1
            continue
        if held:
            yield held
        held, indent, count = (line, depth, 0) if line.lstrip(" -").startswith(_FOLDABLE) else ("", 0, 0)
        if not held:
            yield line
    if held:
        yield held


def _continue(held: str, line: str) -> str:
    """In double quotes YAML ends a line with a backslash, and writes a blank at the next one's begin as another."""
    return held[:-1] + (line[1:] if line.startswith("\\ ") else line) if held.endswith("\\") else f"{held} {line}"


def mark(lines: Iterable[str]) -> Iterator[str]:
    """What a container that ended has left as its message, with all of its lines, is told as that."""
    block = inner = -1
    for line in lines:
        depth = len(line) - len(line.lstrip(" "))
        if line.strip() and depth <= block:
            block = -1
        if block < 0 or not line.strip():
            block, inner = (depth, -1) if _TERMINATED.fullmatch(line) else (block, inner)
            yield line
            continue
        inner = depth if inner < 0 else inner
        message = member_text(line)
        is_its = message is not None or depth > inner
        yield f"{OF_A_CONTAINER}{line.strip() if message is None else message}" if is_its else line


def _text(line: bytes) -> str:
    return line[:LINE_LIMIT].decode(errors="replace").rstrip("\r")
