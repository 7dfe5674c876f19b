# SPDX-License-Identifier: Apache-2.0
"""The one exception of the image factory: what failed, where, and what to do about it."""

from __future__ import annotations

# Longer than any sentence of ours with a path in it, and short beside the content of a file.
_LONGEST = 2000

class BuildError(Exception):
    """A build that cannot go on. `findings` carries every mistake of a declaration or an image, not just the first."""

    def __init__(self, what: str, hint: str = "", *, findings: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.findings = findings

    def __str__(self) -> str:
        head = f"{self.what}; {self.hint}" if self.hint else self.what
        return "\n".join((*map(printable, head.split("\n")), *(f"  {printable(row)}" for row in self.findings)))


class WrongCallError(BuildError):
    """The call cannot be carried out as it is, or not on this machine: no build has failed, and nothing was found."""


def printable(line: str) -> str:
    """Whatever found its way into a message, a terminal and a log get one line of text that ends."""
    cut = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}... ({len(line)} characters)"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in cut)


def reason(wrong: Exception) -> str:
    """Why a file could not be read. Python's own text of a decoding error can hold the whole file (repr)."""
    if isinstance(wrong, UnicodeDecodeError):
        return f"no text, byte {wrong.object[wrong.start]:#04x} at {wrong.start}"
    if isinstance(wrong, KeyError):
        return f"{wrong} is missing"
    return f"{type(wrong).__name__}: {wrong}"
