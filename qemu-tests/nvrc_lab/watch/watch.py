# SPDX-License-Identifier: Apache-2.0
"""Run one QEMU to its end, under deadlines, and tell a listener what its console says. Judges nothing.

QEMU is ended by its pid whatever happens here: on return, on an exception, on Ctrl-C, and, by the kernel's parent-death
signal, when this process is killed. Every byte of the console goes to a file as it comes.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from nvrc_lab.ground.errors import LabError
from nvrc_lab.watch.console import LineSplitter, Story, hear_bytes, hear_line

REDRAW_S = 0.1
_STDERR_LIMIT = 8192


class Ending(Enum):
    """Why the machine is no longer running."""

    GUEST = "the guest ended it"
    STOPPED = "the lab stopped it after READY"
    DEADLINE = "its time was up"
    SILENCE = "its console was silent for too long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`linger_s`: how long a machine may go on after READY before the lab stops it; None waits for the guest.

    `patience_s`: how long QEMU may take to end when it is asked to.
    """

    total_s: float = 120.0
    silence_s: float = 45.0
    linger_s: float | None = None
    patience_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one machine went."""

    story: Story
    ending: Ending
    status: int
    complaint: str
    seconds: float
    console: Path

    @property
    def killed_by(self) -> str:
        """The signal that ended QEMU and that nobody here sent; empty where the guest or the lab ended it."""
        if self.ending is not Ending.GUEST or self.status >= 0:
            return ""
        number = -self.status
        return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


# Called with the story so far, the lines that are new, and the seconds since the start; also when nothing is new.
Listener = Callable[[Story, tuple[str, ...], float], None]


def watch(argv: tuple[str, ...], console: Path, limits: Limits, listen: Listener) -> Run:
    console.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        keep = stack.enter_context(console.open("wb"))
        child = _start(argv)
        stack.callback(_end, child, limits.patience_s)
        return _Watcher(child, keep, limits, listen).run(console)


def _start(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
    guard = shutil.which("setpriv")
    bound = (guard, "--pdeathsig", "KILL", "--", *argv) if guard else argv
    try:
        return subprocess.Popen(bound, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                bufsize=0, start_new_session=True)
    except OSError as err:
        raise LabError(f"{argv[0]} could not be started ({err.strerror})", "install qemu-system-x86") from err


def _end(child: subprocess.Popen[bytes], patience_s: float) -> None:
    """SIGTERM is QEMU's own power switch; what does not heed it is killed."""
    try:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(patience_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(patience_s)
    finally:
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


class _Watcher:
    """The loop over one QEMU's two pipes and its deadlines."""

    def __init__(self, child: subprocess.Popen[bytes], keep: BinaryIO, limits: Limits, listen: Listener) -> None:
        self._child = child
        self._keep = keep
        self._limits = limits
        self._listen = listen
        self._splitter = LineSplitter()
        self._story = Story()
        self._complaint = b""
        self._started_s = time.monotonic()
        self._heard_s = 0.0

    def run(self, console: Path) -> Run:
        with selectors.DefaultSelector() as selector:
            for pipe in (self._child.stdout, self._child.stderr):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ)
            ending = self._listen_until_over(selector)
        self._tell(self._splitter.flush())
        seconds = self._now()
        if ending is Ending.GUEST:
            self._await_exit()
        _end(self._child, self._limits.patience_s)
        return Run(story=self._story, ending=ending, status=self._child.returncode, seconds=seconds, console=console,
                   complaint=self._complaint.decode("utf-8", errors="replace").strip())

    def _listen_until_over(self, selector: selectors.BaseSelector) -> Ending:
        while selector.get_map():
            for key, _ in selector.select(REDRAW_S):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is self._child.stdout:
                    self._hear(data)
                else:
                    self._complaint = (self._complaint + data)[-_STDERR_LIMIT:]
            self._listen(self._story, (), self._now())
            over = self._overdue()
            if over is not None:
                return over
        return Ending.GUEST

    def _hear(self, data: bytes) -> None:
        self._keep.write(data)
        self._keep.flush()
        self._heard_s = self._now()
        self._story = hear_bytes(self._story, data)
        self._tell(self._splitter.feed(data))

    def _tell(self, lines: list[str]) -> None:
        for text in lines:
            self._story = hear_line(self._story, text, self._now())
        if lines:
            self._listen(self._story, tuple(lines), self._now())

    def _overdue(self) -> Ending | None:
        now, limits = self._now(), self._limits
        ready_s = self._story.ready_heard_s
        if limits.linger_s is not None and ready_s is not None and now - ready_s >= limits.linger_s:
            return Ending.STOPPED
        if now >= limits.total_s:
            return Ending.DEADLINE
        if ready_s is None and now - self._heard_s >= limits.silence_s:
            return Ending.SILENCE
        return None

    def _await_exit(self) -> None:
        """Both pipes are closed, so QEMU is on its way out."""
        try:
            self._child.wait(self._limits.patience_s)
        except subprocess.TimeoutExpired:
            return

    def _now(self) -> float:
        return time.monotonic() - self._started_s
