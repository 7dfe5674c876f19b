# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a build runs: one line per stage with its time, and a bar while it lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

_LOOK_S = 0.5


class Progress(Protocol):
    def __call__(self, what: str, done: int, total: int, /) -> None:
        """`total` 0 opens a stage called `what`; otherwise `what` is item `done` of `total` of the open stage."""


def silent(_what: str, _done: int, _total: int) -> None:
    """For callers that want no progress."""


class Terminal:
    """One moving line on a terminal; elsewhere a line for each stage that is over, and one a minute until it is."""

    def __init__(self, stream: TextIO, every_s: float = 60.0) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._every_s = every_s
        self._stage = self._item = ""
        self._started = 0.0
        self._over = threading.Event()

    def __call__(self, what: str, done: int, total: int) -> None:
        if total == 0:
            self.close()
            self._stage, self._item, self._started = what, "", time.monotonic()
            self._write(f"{what:<10} ...")
            if not self._live:
                self._over = threading.Event()
                threading.Thread(target=self._remind, args=(self._over,), name="progress", daemon=True).start()
        else:
            bar = "#" * (20 * done // total)
            self._item = f"{what[:50]} ({done} of {total})"
            self._write(f"{self._stage:<10} [{bar:<20}] {what[:50]}")

    def _remind(self, over: threading.Event) -> None:
        while not over.wait(self._every_s):
            self._stream.write(f"{self._stage:<10} {time.monotonic() - self._started:6.1f} s so far"
                               f"{f': {self._item}' if self._item else ''}\n")
            self._stream.flush()

    def _write(self, text: str) -> None:
        """The one line that changes; a log gets finished stages only."""
        if self._live:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()

    def close(self) -> None:
        self._over.set()
        if self._stage:
            start = "\r\x1b[K" if self._live else ""
            self._stream.write(f"{start}{self._stage:<10} {time.monotonic() - self._started:6.1f} s\n")
            self._stream.flush()
        self._stage = ""


@contextmanager
def watched(folders: Sequence[Path], progress: Progress) -> Iterator[None]:
    """Minutes go by in one compilation: tell meanwhile how many sources of these folders have become objects."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            total, made = (sum(1 for folder in folders for _ in folder.glob(kind)) for kind in ("*.c", "*.o"))
            if total:
                progress(f"compile {min(made, total)} of {total} sources", min(made, total), total)

    watcher = threading.Thread(target=look, name="compiler", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
