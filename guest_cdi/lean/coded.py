# SPDX-License-Identifier: Apache-2.0
"""What a failure with a stable code is, in whichever table the code is: its row, its exception, its line of text."""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple

PLATFORM = "image owner"
AUTHOR = "pod author"
HOST = "node operator"
VENDOR = "bug report"


class FailureCode(NamedTuple):
    code: str
    step: str
    meaning: str
    remedy: str
    who: str


class CodedError(Exception):
    """A failure with a stable code: what failed, where, and what to do about it, on one line."""

    def __init__(self, code: str, what: str, hint: str) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return printable(f"{self.what} ({self.code}): {self.hint}")


def printable(text: str) -> str:
    """One line that any stream takes: a name from a hostile file must not move the cursor or end the line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
