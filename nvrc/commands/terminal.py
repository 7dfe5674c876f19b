# SPDX-License-Identifier: Apache-2.0
"""How wide a text may be, and text of that width."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from typing import TextIO

NARROWEST = 30
UNLIMITED = 0


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
