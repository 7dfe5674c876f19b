# SPDX-License-Identifier: Apache-2.0
"""The one exception of the image factory: what failed, where, and what to do about it."""

from __future__ import annotations


class BuildError(Exception):
    """A build that cannot go on. `findings` carries every mistake of a declaration or an image, not just the first."""

    def __init__(self, what: str, hint: str = "", *, findings: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.findings = findings

    def __str__(self) -> str:
        head = f"{self.what}; {self.hint}" if self.hint else self.what
        return "\n".join((head, *(f"  {finding}" for finding in self.findings)))
