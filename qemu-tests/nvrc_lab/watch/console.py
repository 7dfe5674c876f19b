# SPDX-License-Identifier: Apache-2.0
"""What the serial console said, from bytes to a story. Pure; whatever the bytes are, nothing here raises.

The grammar of our lines is read by nvrc.console, which also writes it. Everything else on the console (firmware,
kernel, agent) only counts as a sign of life, but for the kernel's panic line, which ends every hope of a verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from nvrc.vocabulary.transcript import EndLine, Line, ReadyLine, StepLine, WarningLine, parse_line
from nvrc.vocabulary.trouble import Trouble
from nvrc_lab.ground.hosttime import STAMP

LINE_LIMIT = 4096
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_TERMINAL = re.compile(r"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|[()][0-9A-Za-z]|[@-Z\\-_a-z])")
# The kernel prints its records whole, but also into the middle of a line that a program is writing to the console.
_RECORD_INSIDE = re.compile(r"(?<=.)(?=\[ *[0-9]{1,9}\.[0-9]{6}\](?:\[ *[TC][0-9]+\])? nvrc: )")
_KERNEL_STARTS = re.compile(rb"(?<=[^ >])(?=\[ *[0-9]{1,9}\.[0-9]{6}\] nvrc: )")
# What begins as a record is one to its end: another one that seems to begin in it was said by whoever it quotes.
_RECORD = re.compile(rb"(?:<[0-9]{1,3}>)?(?:\[ *[0-9]{1,9}\.[0-9]{6}\](?:\[ *[TC][0-9]+\])? |nvrc: )")
_ORDINARY = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\x1b\b\f")


class LineSplitter:
    """Whole lines from pieces of bytes; a line without an end is cut at LINE_LIMIT."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LINE_LIMIT:
            whole.append(self._rest[:LINE_LIMIT])
            self._rest = self._rest[LINE_LIMIT:]
        return [clean(piece) for line in whole for part in _records(line) for piece in _cut(part)]

    def flush(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return [clean(rest)] if rest else []


def _records(line: bytes) -> list[bytes]:
    """What a program was writing, and the record of the kernel that broke into it. Inside quotes nothing begins."""
    found = None if _RECORD.match(line) else _KERNEL_STARTS.search(line)
    if found is None or line.count(b'"', 0, found.start()) % 2:
        return [line]
    return [line[:found.start()], line[found.start():]]


def _cut(line: bytes) -> list[bytes]:
    return [line[at:at + LINE_LIMIT] for at in range(0, len(line), LINE_LIMIT)] or [b""]


def clean(raw: bytes) -> str:
    """Printable text: terminal sequences are dropped, what is no UTF-8 or no character to show is escaped."""
    text = _TERMINAL.sub("", raw.decode("utf-8", errors="backslashreplace")).strip("\r").replace("\t", " ")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardStep:
    """A step as the guest told it, and when the host heard of it, in seconds since QEMU's start."""

    line: StepLine
    heard_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that the machine told so far. `said` are its verdicts and ends, in their order.

    `kernel_s` is the guest's clock when our first line came.

    `is_logged`: our lines come by the kernel's log, so what looks like one elsewhere is none.
    """

    steps: tuple[HeardStep, ...] = ()
    warnings: tuple[str, ...] = ()
    said: tuple[ReadyLine | Trouble | EndLine, ...] = ()
    panic: str = ""
    kernel_s: float | None = None
    ready_heard_s: float | None = None
    lines: int = 0
    size_bytes: int = 0
    strange_bytes: int = 0
    is_logged: bool = False
    tail: tuple[str, ...] = field(default=())

    @property
    def verdicts(self) -> tuple[ReadyLine | Trouble, ...]:
        return tuple(line for line in self.said if not isinstance(line, EndLine))

    @property
    def end(self) -> EndLine | None:
        return next((line for line in self.said if isinstance(line, EndLine)), None)

    @property
    def ready(self) -> ReadyLine | None:
        first = self.verdicts[0] if self.verdicts else None
        return first if isinstance(first, ReadyLine) else None

    @property
    def failure(self) -> Trouble | None:
        return next((line for line in self.verdicts if isinstance(line, Trouble)), None)

    @property
    def is_garbage(self) -> bool:
        """Most of what came cannot be text: wrong speed, wrong device, or not a console at all."""
        return self.size_bytes > 0 and self.strange_bytes * 2 > self.size_bytes


TAIL_LINES = 12


def hear_bytes(story: Story, data: bytes) -> Story:
    strange = sum(byte not in _ORDINARY for byte in data)
    return replace(story, size_bytes=story.size_bytes + len(data), strange_bytes=story.strange_bytes + strange)


def hear_line(story: Story, text: str, heard_s: float, *, is_log: bool = True) -> Story:
    """`is_log`: it came by the port with the kernel's log, not by the console of programs."""
    story = replace(story, lines=story.lines + 1)
    found = None if _RECORD.match(text.encode()) else _RECORD_INSIDE.search(text)
    parts = [text]
    if found is not None and text.count('"', 0, found.start()) % 2 == 0:
        parts = [text[:found.start()], text[found.start():]]
    for part in parts:
        story = _hear_part(story, part, heard_s, is_log=is_log)
    return story


def _hear_part(story: Story, text: str, heard_s: float, *, is_log: bool) -> Story:
    told = parse_line(text)
    if told is not None and (is_log or not story.is_logged):
        return _hear_ours(replace(story, is_logged=is_log or story.is_logged), told, text, heard_s)
    if text.strip():
        story = replace(story, tail=(*story.tail, text)[-TAIL_LINES:])
    found = _PANIC.search(text)
    if found and not story.panic:
        return replace(story, panic=found[1])
    return story


def _hear_ours(story: Story, told: Line, text: str, heard_s: float) -> Story:
    if story.kernel_s is None and (stamp := STAMP.match(text)):
        story = replace(story, kernel_s=float(stamp[1]))
    match told:
        case StepLine():
            return replace(story, steps=(*story.steps, HeardStep(line=told, heard_s=heard_s)))
        case WarningLine():
            return replace(story, warnings=(*story.warnings, told.text))
        case ReadyLine():
            return replace(story, said=(*story.said, told), ready_heard_s=story.ready_heard_s or heard_s)
        case Trouble() | EndLine():
            return replace(story, said=(*story.said, told))
