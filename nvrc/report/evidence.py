# SPDX-License-Identifier: Apache-2.0
"""Which lines of a console explain a failure, found while the log streams by, and how sure one may be of it.

A row of the table of signatures holds for the machines it was met on: what it says is hedged where the machine is
another, or where nothing tells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from nvrc.services.signatures import FABRIC, SIGNATURES, SPENT, Signature
from nvrc.vocabulary.mode import Mode

LINE_LIMIT = 400  # of a line that is kept to be shown
OFF = "off"
# Steps that fail by what others do; the cause of any other failure is in its own words.
STEPS_OF_OTHERS = frozenset({"modules", "device-nodes", "fabric", "persistenced", "gpu-settings", "cc-check", "cdi",
                             "dcgm", "ready-state", "agent", "supervise"})


class Evidence:
    """The first line with each word of each row. Its size is that of the table, whatever the length of the log."""

    def __init__(self, rows: Sequence[Signature] = SIGNATURES) -> None:
        self._rows = rows
        self._any = _any_word(rows)
        self._first: dict[str, str] = {}

    def hear(self, line: str) -> None:
        if self._any.search(line) is None:
            return
        for row in self._rows:
            for word in row.words:
                if word in line:
                    self._first.setdefault(word, line[:LINE_LIMIT])

    def explain(self, code: str, step: str, mode: Mode | None, confidential: str) -> Signature | None:
        """The first row that is all there, fits the failure, and can be true of this machine."""
        for row in self._rows:
            if all(word in self._first for word in row.words) and _fits(row, code, step):
                sure = _hedge(row, mode, confidential)
                if sure is not None:
                    return row._replace(cause=sure + row.cause)
        return None

    def lines(self, row: Signature) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._first[word] for word in row.words))


@cache
def _any_word(rows: Sequence[Signature]) -> re.Pattern[str]:
    """Put together once: a log has a story for each boot of its VM."""
    return re.compile("|".join(sorted({re.escape(word) for row in rows for word in row.words})))


def _fits(row: Signature, code: str, step: str) -> bool:
    """A row with a code explains that code; one without, what the driver, daemons and agent may have caused."""
    if not code:
        return True
    return row.code == code if row.code else step in STEPS_OF_OTHERS or row.name == "out-of-memory"


def _hedge(row: Signature, mode: Mode | None, confidential: str) -> str | None:
    """What to say before the cause; None where it cannot be the cause."""
    if SPENT in row.cause:
        if confidential == OFF:
            return None
        return "" if confidential else "if the GPU is in confidential mode: "
    if row.source == FABRIC or row.name.startswith("nvlink-"):
        if mode in (Mode.CPU, Mode.GPU):
            return f"unusual in mode {mode.value}, which runs no fabric: "
        return "" if mode else "if the GPUs are linked by switches: "
    return ""
