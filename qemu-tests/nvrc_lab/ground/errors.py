# SPDX-License-Identifier: Apache-2.0
"""The one exception of the lab: what is wrong, and what to do about it."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot go on. A finding about the guest is never raised; it is a judgement (verdict.py)."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.hint}"
