# SPDX-License-Identifier: Apache-2.0
"""How wide a text may be, and texts and tables of that width."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

NARROWEST = 30
UNLIMITED = 0
LEAST_ROOM = 14  # for the last column of a table; with less, a row becomes lines
WIDEST = 120     # of a column that others are put below each other behind; a longer cell goes out of line


def width_of(out: TextIO, environ: Mapping[str, str] = os.environ) -> int:
    """COLUMNS, else the terminal's own; without a terminal a line is as long as it is, for grep's sake.

    What goes to no file at all, but back to a caller, is left as it is.
    """
    try:
        descriptor = out.fileno()
    except (OSError, ValueError, AttributeError):
        return UNLIMITED
    told = environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and 0 < len(told) < 6 and int(told):
        return max(NARROWEST, int(told))
    try:
        return max(NARROWEST, os.get_terminal_size(descriptor).columns)
    except OSError:
        return UNLIMITED


def fold(label: str, text: str, width: int) -> Iterator[str]:
    """`  label    text`, continued below its first word. A word longer than the line is broken."""
    head = f"  {label:9}"
    if not width or len(head) + len(text) <= width:
        yield head + text
        return
    room = max(10, width - len(head))
    for index, piece in enumerate(textwrap.wrap(text, room, break_on_hyphens=False) or [""]):
        yield (head if index == 0 else " " * len(head)) + piece


def wrap(text: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False) if width else [text]

def flow(text: str, width: int) -> str:
    """Each line within the width, continued below its own begin. Ends as it did."""
    if not width:
        return text
    return "\n".join(piece for line in text.split("\n") for piece in _break(line, width))


def write_text(out: TextIO, text: str) -> None:
    """For people; what a program reads is written as it is."""
    out.write(flow(text, width_of(out)))


def _break(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = line[:len(line) - len(line.lstrip(" "))]
    if len(indent) > width - LEAST_ROOM:  # a column of figures
        indent = ""
    below = indent + " " * min(4, max(2, width // 20))
    return textwrap.wrap(line, width, subsequent_indent=below, break_on_hyphens=False, replace_whitespace=False)


def lay_table(rows: Sequence[Sequence[str]], width: int = UNLIMITED, *, has_heads: bool = False) -> list[str]:
    """Columns as wide as their widest cell, the last one free and wrapped to the width. Where it has no room, a row is
    its first cell and below it a line for each other, after its head if there are any.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if not width:  # each row is filled up to the widest: one long cell of a hostile document would be memory for all
        return [_row(cells, [min(one, WIDEST) for one in widths]) for cells in rows]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    if before + max(widths[-1:], default=0) <= width:
        return [_row(cells, widths) for cells in rows]
    if width - before >= LEAST_ROOM:
        return [line for cells in rows for line in _wrapped_row(cells, widths, before, width)]
    heads = [f"{head.strip()}: " for head in rows[0]] if has_heads else [""] * len(widths)
    return [line for cells in rows[int(has_heads):] for line in _record(cells, heads, width)]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _wrapped_row(cells: Sequence[str], widths: Sequence[int], before: int, width: int) -> Iterator[str]:
    first, *rest = textwrap.wrap(cells[-1], width - before, break_on_hyphens=False) or [""]
    yield _row((*cells[:-1], first), widths)
    yield from (" " * before + piece for piece in rest)


def _record(cells: Sequence[str], heads: Sequence[str], width: int) -> Iterator[str]:
    yield from textwrap.wrap(heads[0] + cells[0].strip(), width, subsequent_indent="    ", break_on_hyphens=False)
    for head, cell in zip(heads[1:], cells[1:], strict=True):
        if cell.strip():
            yield from textwrap.wrap(f"  {head}{cell.strip()}", width, subsequent_indent="    ", break_on_hyphens=False)
