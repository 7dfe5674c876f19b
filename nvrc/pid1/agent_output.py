# SPDX-License-Identifier: Apache-2.0
"""The agent's output on its way to the console, and what its last complaint was while it had no sandbox yet.

The agent writes into a pipe; PID 1 writes the same bytes to the console, without waiting for it. What the console does
not take yet is kept, up to BACKLOG_BYTES, then left in the pipe: a console that stands still holds the agent up later
than it would without us. Once there is a sandbox nothing is read along: from then on lines may quote containers.

kata-agent logs one JSON object a line (slog: msg, level, and what the place adds, such as error); a panic and the end
of main() are plain text on standard error.
"""

from __future__ import annotations

import os
import select

from guest_cdi.lean.light import Callable
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.vocabulary import paths

LINE_BYTES = 8192  # of a line that is read along; more of it only passes through
TOLD_BYTES = 300
CHUNK_BYTES = 1 << 16
BACKLOG_BYTES = 1 << 18
REST_BYTES = 1 << 20  # read after the agent's end at most; a child it left behind may never stop writing
FLUSH_S = 1.0
COMPLAINTS = (b'"level":"ERRO"', b'"level":"CRIT"')


class LastWords:
    """The newest complaint in a stream of lines. Whatever comes, it keeps two lines at most."""

    def __init__(self) -> None:
        self._line = b""
        self._complaint = b""
        self._is_panic = False

    def hear(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._line = (self._line + first[:LINE_BYTES])[:LINE_BYTES]
        for line in others:
            self._judge(self._line)
            self._line = line[:LINE_BYTES]

    def tell(self) -> str:
        """In one line of at most TOLD_BYTES; nothing when there was none. Not escaped: who prints it does that."""
        self._judge(self._line)  # the last one may have no end
        self._line = b""
        words = " ".join((_read_log(self._complaint) or self._complaint.decode("utf-8", "replace")).split())
        raw = words.encode("utf-8", "replace")
        return words if len(raw) <= TOLD_BYTES else raw[:TOLD_BYTES - 3].decode("utf-8", "ignore") + "..."

    def _judge(self, line: bytes) -> None:
        line = line.strip()
        if self._is_panic and line:  # "thread 'main' panicked at src/main.rs:1:2:", and the message behind it
            self._complaint, self._is_panic = self._complaint + b" " + line, False
        elif line.startswith(b"thread '") and b" panicked at " in line:
            self._complaint, self._is_panic = line, line.endswith(b":")
        elif line.startswith((b"Error: ", b"{")) and (line[:1] == b"E" or any(word in line for word in COMPLAINTS)):
            self._complaint = line


def _read_log(line: bytes) -> str:
    """Message and error of a log line; nothing when it is none."""
    from guest_cdi.lean.jsonvalue import read_json

    try:
        entry = read_json(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict):
        return ""
    message, error = (value if isinstance(value := entry.get(key), str) else "" for key in ("msg", "error"))
    return f"{message}: {error}" if message and error and error not in message else message or error


def open_console() -> int:
    """This process's standard output once more, so that not waiting for it concerns nobody else; -1 without one."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open("/proc/self/fd/1", flags)
    except OSError:
        return -1


class AgentOutput:
    """`source` has the agent's output to read and is closed at its end; `sink` is the console."""

    def __init__(self, system: System, loop: Loop, source: int, sink: int, flush_s: float = FLUSH_S) -> None:
        self._system, self._loop, self._source, self._sink = system, loop, source, sink
        self._flush_s = flush_s
        self._words: LastWords | None = LastWords()
        self._backlog = b""
        self._is_reading = self._is_writing = False
        self._settle()

    def finish(self) -> str:
        """After the agent's end: what is still in the pipe, to the console; the last complaint if it had no sandbox."""
        rest = REST_BYTES
        while rest > 0 and (data := self._read()):
            rest -= len(data)
        until = self._system.now() + self._flush_s
        waiting = select.poll()
        waiting.register(self._sink, select.POLLOUT)
        while self._backlog and (left := until - self._system.now()) > 0 and waiting.poll(left * 1000):
            self._write()
        self._settle()
        return self._words.tell() if self._words is not None else ""

    def _readable(self) -> None:
        self._read()
        self._write()
        self._settle()

    def _writable(self) -> None:
        self._write()
        self._settle()

    def _read(self) -> bytes:
        """What there is now, kept for the console; nothing at the end, or while there is nothing."""
        if self._source < 0:
            return b""
        try:
            data = os.read(self._source, CHUNK_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._watch(is_reading=False)
            os.close(self._source)
            self._source = -1
        self._backlog += data
        if self._words is not None and self._system.exists(paths.SANDBOX):
            self._words = None
        if self._words is not None:
            self._words.hear(data)
        return data

    def _write(self) -> None:
        try:
            while self._backlog:
                self._backlog = self._backlog[os.write(self._sink, self._backlog[:CHUNK_BYTES]):]
        except BlockingIOError:
            pass
        except OSError:
            self._backlog = b""  # there is no console any more; the agent would have been told so, and gone on

    def _settle(self) -> None:
        """Watch what can go on: the pipe while there is room for what it has, the console while there is a backlog."""
        self._watch(is_reading=self._source >= 0 and len(self._backlog) < BACKLOG_BYTES)
        if self._is_writing != bool(self._backlog):
            try:
                self._is_writing = _change(self._loop, self._sink, bool(self._backlog), self._writable, writing=True)
            except OSError:
                self._backlog = b""  # nobody could ever tell when such a console takes more

    def _watch(self, *, is_reading: bool) -> None:
        if self._is_reading != is_reading:
            self._is_reading = _change(self._loop, self._source, is_reading, self._readable)


def _change(loop: Loop, descriptor: int, wanted: bool, ready: Callable[[], None], *, writing: bool = False) -> bool:
    if wanted:
        loop.watch(descriptor, ready, writing=writing)
    else:
        loop.unwatch(descriptor)
    return wanted
