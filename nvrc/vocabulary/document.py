# SPDX-License-Identifier: Apache-2.0
"""Files that the commands are given: a path, or `-` for standard input. Problems name the file."""

from __future__ import annotations

import sys

from guest_cdi.lean.light import BinaryIO, Callable, TypeVar
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.transcript import parse_report_piece

T = TypeVar("T")
STDIN = "-"
LIMIT = 64 << 20


def read_input(path: str, stdin: BinaryIO | None = None) -> bytes:
    if path == STDIN:
        return (stdin or sys.stdin.buffer).read(LIMIT)
    with open(path, "rb") as file:
        return file.read(LIMIT)


def find_report(data: bytes) -> bytes:
    """The report itself, or the last one that a console log carries (nvrc.report=console)."""
    if data.lstrip().startswith(b"{"):
        return data
    pieces: list[str] = []
    found = ""
    for text in data.decode(errors="replace").split("\n"):
        piece = parse_report_piece(text)
        if piece is None:
            continue
        if piece == "{":
            pieces.clear()
        pieces.append(piece)
        if piece == "}":
            found = "".join(pieces)
    if not found:
        raise FormatError(("neither a report nor a console log with one; nvrc.report=console puts it there",))
    return found.encode()


def read_as(reader: Callable[[bytes], T], path: str, data: bytes) -> T:
    try:
        return reader(data)
    except FormatError as err:
        raise FormatError(tuple(f"{path}: {problem}" for problem in err.problems)) from err
