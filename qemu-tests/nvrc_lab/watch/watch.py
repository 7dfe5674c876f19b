# SPDX-License-Identifier: Apache-2.0
"""Run one QEMU to its end, under deadlines, and tell a listener what its serial ports say. Judges nothing.

QEMU is ended by its pid whatever happens here: on return, on an exception, on Ctrl-C, and, by the kernel's parent-death
signal, when this process is killed. Every byte goes to a file as it comes.

A machine of two ports (machine.py) has the kernel's log on the first, which we read as a pipe, and on the second the
console of its programs, which QEMU writes to a file. Every record of the log is on both, but nothing can break into it
on the first: of the second we take what is no copy of a record. Deadlines count the time that the machine had
(hosttime.py); the wall clock ends it only far beyond.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.hosttime import STAMP, STAMP_INSIDE, Clocks, Host, read_load, starved_s, wall_limit_s
from nvrc_lab.watch.console import LineSplitter, Story, hear_bytes, hear_line

REDRAW_S = 0.1
_STDERR_LIMIT = 8192
# More than a machine ever says: one whose port is full drops characters after ten milliseconds.
_PIPE_BYTES = 1 << 20


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
    """How one machine went. `power_off_s`: the time that it had from its last verdict to its end."""

    story: Story
    ending: Ending
    status: int
    complaint: str
    seconds: float
    console: Path
    power_off_s: float | None = None
    host: Host = field(default_factory=Host)
    clocks: Clocks = field(default_factory=Clocks)

    @property
    def killed_by(self) -> str:
        """The signal that ended QEMU and that nobody here sent; empty where the guest or the lab ended it."""
        if self.ending is not Ending.GUEST or self.status >= 0:
            return ""
        number = -self.status
        return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


# Called with the story so far, the lines that are new, and the seconds since the start; also when nothing is new.
Listener = Callable[[Story, tuple[str, ...], float], None]


def watch(argv: tuple[str, ...], console: Path, limits: Limits, listen: Listener, *, record: Path | None = None) -> Run:
    """`record`: where the first port's bytes are kept, if QEMU itself writes `console` from a second one."""
    console.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        keep = stack.enter_context((record or console).open("wb"))
        second = stack.enter_context(_begin(console)) if record is not None else None
        child = _start(argv)
        stack.callback(_end, child, limits.patience_s)
        run = _Watcher(child, keep, second, limits, listen).run(console)
    if record is not None and not console.stat().st_size:
        shutil.copyfile(record, console)  # its kernel knows of one port only
    return run


def record_of(console: Path) -> Path:
    """Where the kernel's log is kept beside the console of a machine of two ports."""
    return console.with_suffix(".log") if console.suffix == ".console" else console.with_name(f"{console.name}.log")


def _begin(path: Path) -> BinaryIO:
    path.write_bytes(b"")
    return path.open("rb")


def _start(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
    guard = shutil.which("setpriv")
    bound = (guard, "--pdeathsig", "KILL", "--", *argv) if guard else argv
    try:
        child = subprocess.Popen(bound, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 bufsize=0, start_new_session=True)
    except OSError as err:
        raise LabError(f"{argv[0]} could not be started ({err.strerror})", "install qemu-system-x86") from err
    if child.stdout is not None:
        with contextlib.suppress(OSError):  # above what this user may have: the default is 64 KiB
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return child


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


def own_part(text: str) -> str:
    """A program's line without the record that the kernel printed into it."""
    found = STAMP_INSIDE.search(text)
    return text[:found.start()] if found else text


class _Watcher:
    """The loop over one QEMU's ports and its deadlines."""

    def __init__(self, child: subprocess.Popen[bytes], keep: BinaryIO, second: BinaryIO | None, limits: Limits,
                 listen: Listener) -> None:
        self._child = child
        self._keep = keep
        self._second = second
        self._limits = limits
        self._listen = listen
        self._splitter, self._second_splitter = LineSplitter(), LineSplitter()
        self._story, self._clocks = Story(), Clocks()
        self._complaint = b""
        self._started_s = time.monotonic()
        self._starved_s = 0.0
        self._heard_s = self._ready_s = 0.0
        self._verdict_s: float | None = None

    def run(self, console: Path) -> Run:
        with selectors.DefaultSelector() as selector:
            for pipe in (self._child.stdout, self._child.stderr):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ)
            ending = self._listen_until_over(selector)
        self._tell(self._splitter.flush())
        self._hear_second()
        self._tell_second(self._second_splitter.flush())
        seconds, end_s = self._now(), self._had()
        if ending is Ending.GUEST:
            self._await_exit()
        _end(self._child, self._limits.patience_s)
        return Run(story=self._story, ending=ending, status=self._child.returncode, seconds=seconds, console=console,
                   complaint=self._complaint.decode("utf-8", errors="replace").strip(), clocks=self._clocks,
                   power_off_s=None if self._verdict_s is None else end_s - self._verdict_s,
                   host=Host(starved_s=self._starved_s, load=read_load()))

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
            self._hear_second()
            self._listen(self._story, (), self._now())
            over = self._overdue()
            if over is not None:
                return over
        return Ending.GUEST

    def _hear(self, data: bytes) -> None:
        self._keep.write(data)
        self._keep.flush()
        self._heard_s = self._had()
        self._story = hear_bytes(self._story, data)
        self._tell(self._splitter.feed(data))

    def _hear_second(self) -> None:
        data = self._second.read() if self._second is not None else b""
        if data:
            self._heard_s = self._had()
            self._story = hear_bytes(self._story, data)
            self._tell_second(self._second_splitter.feed(data))

    def _tell(self, lines: list[str]) -> None:
        before = self._story
        for text in lines:
            self._story = hear_line(self._story, text, self._now())
            self._clocks = self._clocks.hear(text, self._now())
        self._pass_on(lines, before)

    def _tell_second(self, lines: list[str]) -> None:
        """What programs print. The init does so before there is a kernel log to write to, and if that is forbidden."""
        own, before = [own_part(text) for text in lines if not STAMP.match(text)], self._story
        for text in own:
            self._story = hear_line(self._story, text, self._now(), is_log=False)
        self._pass_on(own, before)

    def _pass_on(self, lines: list[str], before: Story) -> None:
        if len(self._story.verdicts) > len(before.verdicts):
            self._verdict_s = self._had()
        if self._story.ready is not None and before.ready is None:
            self._ready_s = self._had()
        if lines:
            self._listen(self._story, tuple(lines), self._now())

    def _overdue(self) -> Ending | None:
        now, limits = self._had(), self._limits
        is_ready = self._story.ready is not None
        if limits.linger_s is not None and is_ready and now - self._ready_s >= limits.linger_s:
            return Ending.STOPPED
        if now >= limits.total_s or self._now() >= wall_limit_s(limits.total_s):
            return Ending.DEADLINE
        if not is_ready and now - self._heard_s >= limits.silence_s:
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

    def _had(self) -> float:
        """The machine's own time: the host's seconds, less those in which it had to wait for a processor."""
        self._starved_s = max(self._starved_s, starved_s(self._child.pid))
        return self._now() - self._starved_s
