# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a build runs: one line per stage with its time, and a bar while it lasts."""

from __future__ import annotations

import time
from typing import Protocol, TextIO


class Progress(Protocol):
    def __call__(self, what: str, done: int, total: int, /) -> None:
        """`total` 0 opens a stage called `what`; otherwise `what` is item `done` of `total` of the open stage."""


def silent(_what: str, _done: int, _total: int) -> None:
    """For callers that want no progress."""


class Terminal:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._stage = ""
        self._started = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if total == 0:
            self.close()
            self._stage, self._started = what, time.monotonic()
        elif self._live:
            bar = "#" * (20 * done // total)
            self._stream.write(f"\r\x1b[K{self._stage:<10} [{bar:<20}] {what[:50]}")
            self._stream.flush()

    def close(self) -> None:
        if self._stage:
            start = "\r\x1b[K" if self._live else ""
            self._stream.write(f"{start}{self._stage:<10} {time.monotonic() - self._started:6.1f} s\n")
            self._stream.flush()
        self._stage = ""
