# SPDX-License-Identifier: Apache-2.0
"""Everything said on /dev/log and the kernel's own words, bounded: a file for people, a ring for failure messages.

Intake is never limited: each wake-up drains the socket. What is kept is: the newest lines in memory, and a file
that is begun anew when full, with one predecessor. A full /run costs the file, not the boot.
"""

from __future__ import annotations

import _thread
import os

from guest_cdi.lean.light import TYPE_CHECKING, Callable, NamedTuple, deque
from nvrc.machine.system import System
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import printable

if TYPE_CHECKING:
    from nvrc.machine.foreign import Burden

RING_LINES = 512
LINE_BYTES = 4096
FILE_BYTES = 1 << 20
BATCH = 1024
FORWARD_LINES = 2000  # of one boot: the console is slow, and a flood must not make the boot slow with it
FORWARD_CHARS = 800
DEFAULT_LEVEL = 6


KERNEL, KERNEL_LOST = -2, -3  # in place of a sender's uid
LOST = "messages of the kernel were overwritten before they were read"


class Line(NamedTuple):
    """One message: its place in the stream, the sender's uid, and the text without the priority.

    Kernel warnings, which have no place in the stream of daemons' messages, have serial 0 and the uid KERNEL; a gap in
    them is a line of its own, of uid KERNEL_LOST.
    """

    serial: int
    uid: int
    text: str
    pid: int = 0        # of the sender of a datagram, as the kernel tells it
    source: str = ""    # whose own pipe it came by
    gid: int = -1       # of the sender of a datagram; with CAP_SYS_ADMIN a pid may be another's, this may not


Heard = Callable[[Line], None]


def read_record(descriptor: int) -> bytes:
    return os.read(descriptor, 8192)


class Journal:
    """The running log. Created by its step, fed by PID 1's event loop, read by whoever explains a failure."""

    def __init__(self, system: System, log_socket: int = -1, kernel_log: int = -1,
                 burden: Burden | None = None) -> None:
        self._system, self._burden = system, burden
        self.log_socket = log_socket
        self.kernel_log = kernel_log
        self._ring: deque[Line] = deque(maxlen=RING_LINES)
        self._kernel: deque[str] = deque(maxlen=64)
        self._listeners: tuple[Heard, ...] = ()
        self._listening = _thread.allocate_lock()
        self._partial: dict[int, bytes] = {}
        self.serial = 0
        self.file_losses = 0
        self._forwarded = 0
        self._forward_at_most = -1

    def since(self, serial: int) -> tuple[Line, ...]:
        """Lines that came after a place in the stream and are still kept."""
        return tuple(line for line in self._ring if line.serial > serial)

    def tail(self, count: int = 8) -> tuple[str, ...]:
        """The newest lines of daemons and kernel, for a failure message."""
        return tuple(line.text for line in list(self._ring)[-count:]) + tuple(list(self._kernel)[-count:])

    def forward(self, level: int) -> None:
        """Show messages of this level or more urgent ones on the console as well, from now on."""
        self._forward_at_most = level

    def listen(self, heard: Heard) -> None:
        """Have every later line, of daemons and kernel, given to `heard` as it comes, by the event loop.

        Steps on threads of their own listen and unlisten; the loop only ever reads the tuple.
        """
        with self._listening:
            self._listeners = (*self._listeners, heard)

    def unlisten(self, heard: Heard) -> None:
        with self._listening:
            self._listeners = tuple(one for one in self._listeners if one != heard)

    def drain(self) -> bool:
        """Take what waits in the socket, at most one batch, so that other events get their turn. False where what came
        with a message cannot be closed yet.
        """
        from nvrc.machine.foreign import Burden, receive

        self._burden = self._burden or Burden()
        if not self._burden.lay_down():
            return False
        texts, is_free = [], True
        for _ in range(BATCH):
            try:
                datagram, sender, descriptors = receive(self.log_socket, LINE_BYTES)
            except OSError:
                break
            level, text = split_priority(datagram)
            self._hear(sender.uid, level, text, sender.pid, gid=sender.gid)
            texts.append(text)
            if descriptors:
                is_free = self._burden.take(descriptors)
                break  # that takes a process: other events get their turn after each
        self._keep(texts)
        return is_free

    def read_output(self, descriptor: int, name: str) -> bool:
        """Take what a program has printed, as lines under its name; False when it will print no more."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return True
        *lines, rest = (self._partial.pop(descriptor, b"") + data).split(b"\n")
        if data and len(rest) < LINE_BYTES:
            self._partial[descriptor] = rest
        elif rest:
            lines.append(rest)
        texts = [f"{name}: {split_priority(line)[1]}" for line in lines if line.strip()]
        for text in texts:
            self._hear(0, DEFAULT_LEVEL, text, source=name)
        self._keep(texts)
        return bool(data)

    def _hear(self, uid: int, level: int, text: str, pid: int = 0, *, source: str = "", gid: int = -1) -> None:
        self.serial += 1
        line = Line(self.serial, uid, text, pid, source, gid)
        self._ring.append(line)
        if level <= self._forward_at_most and self._forwarded < FORWARD_LINES:
            self._forwarded += 1
            # Whoever asked for it is shown it, `quiet` or not; a carriage return must not make another line of it.
            self._system.say(f"nvrc: log {printable(text, FORWARD_CHARS)}")
        for heard in self._listeners:
            heard(line)

    def _keep(self, texts: list[str]) -> None:
        if not texts:
            return
        try:
            self._system.append(paths.SYSLOG, ("\n".join(texts) + "\n").encode(errors="replace"), FILE_BYTES)
        except OSError:
            self.file_losses += 1

    def read_kernel(self, read: Callable[[int], bytes] = read_record) -> None:
        """Take what waits in /dev/kmsg: warnings and worse of the kernel itself, not what programs wrote there."""
        for _ in range(BATCH):
            try:
                record = read(self.kernel_log)
            except BrokenPipeError:  # the next read goes on behind the gap
                self._hear_kernel(KERNEL_LOST, LOST)
                continue
            except OSError:
                return
            if text := kernel_warning(record):
                self._hear_kernel(KERNEL, text)

    def _hear_kernel(self, uid: int, text: str) -> None:
        self._kernel.append(text)
        for heard in self._listeners:
            heard(Line(0, uid, text))


def split_priority(datagram: bytes) -> tuple[int, str]:
    """Level and text of a syslog datagram: `<N>` in front and white space behind removed; one line, never an error."""
    text, level = datagram.decode("utf-8", "replace"), DEFAULT_LEVEL
    if text.startswith("<"):
        number, closed, rest = text[1:5].partition(">")
        if closed and number.isdecimal():
            text, level = rest + text[5:], int(number) & 7
    return level, " ".join(text.replace("\0", " ").split("\n")).rstrip()


def kernel_warning(record: bytes) -> str:
    """The text of a /dev/kmsg record of facility 0 at level warning or worse, else nothing."""
    prefix, _, message = record.partition(b";")
    priority = prefix.split(b",", 1)[0]
    if not priority.isdigit() or int(priority) > 4:
        return ""
    return message.split(b"\n", 1)[0].decode("utf-8", "replace")
