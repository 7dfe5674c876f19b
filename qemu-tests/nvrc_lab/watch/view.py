# SPDX-License-Identifier: Apache-2.0
"""The boot on the terminal as it happens: a table that is redrawn where there is a terminal, plain lines elsewhere.

What is shown is a function of the story so far; only `Live` writes, and only to the stream that it is given.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Protocol, TextIO

from nvrc.vocabulary.transcript import StepLine
from nvrc.vocabulary.trouble import Trouble
from nvrc_lab.watch.console import TAIL_LINES, Story
from nvrc_lab.watch.verdict import Judgement
from nvrc_lab.watch.watch import Run

BAR_WIDTH = 24
_MARKS: Mapping[str, str] = {"ok": "✓", "skip": "·", "warn": "!", "fail": "✗"}
_COLOURS: Mapping[str, str] = {"ok": "32", "skip": "2", "warn": "33", "fail": "31", "dim": "2", "bold": "1"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_HOME, _CLEAR_DOWN = "\x1b[{}A\r", "\x1b[J"


class View(Protocol):
    def update(self, story: Story, lines: tuple[str, ...], now_s: float, /) -> None: ...
    def finish(self, run: Run, judgement: Judgement) -> None: ...


class Silent:
    """For machines: says nothing while it runs."""

    def update(self, story: Story, lines: tuple[str, ...], now_s: float, /) -> None:
        """Nothing to show."""

    def finish(self, run: Run, judgement: Judgement) -> None:
        """The caller prints JSON."""


class Plain:
    """For logs: every step, warning and verdict once; with `everything`, each console line as it came."""

    def __init__(self, stream: TextIO, *, everything: bool = False) -> None:
        self._stream = stream
        self._everything = everything
        self._steps = 0
        self._warnings = 0

    def update(self, story: Story, lines: tuple[str, ...], now_s: float, /) -> None:
        texts = [f"{now_s:7.2f}  {line}" for line in lines] if self._everything else []
        if not self._everything:
            texts += [f"{step.heard_s:7.2f}  {describe_step(step.line)}" for step in story.steps[self._steps:]]
            texts += [f"{now_s:7.2f}  ! {text}" for text in story.warnings[self._warnings:]]
        self._steps, self._warnings = len(story.steps), len(story.warnings)
        if texts:
            self._stream.write("\n".join(texts) + "\n")
            self._stream.flush()

    def finish(self, run: Run, judgement: Judgement) -> None:
        self._stream.write("\n".join(conclusion(run, judgement)) + "\n")
        self._stream.flush()


class Live:
    """For a terminal: the table so far, what is running, and the console's last words, redrawn in place."""

    def __init__(self, stream: TextIO, size: tuple[int, int] | None = None, *, in_colour: bool = True) -> None:
        self._stream = stream
        self._paint = paint if in_colour else str
        self._width, self._rows = size or shutil.get_terminal_size()
        self._height = 0
        self._shown = ""

    def update(self, story: Story, _lines: tuple[str, ...], now_s: float, /) -> None:
        # What scrolled off the top cannot be drawn again.
        self._draw([*table(story), *running(story, now_s), *tail(story, 4)][-(self._rows - 1):])

    def finish(self, run: Run, judgement: Judgement) -> None:
        self._draw([*table(run.story), *agent_words(run.story), "", *conclusion(run, judgement)])
        self._height, self._shown = 0, ""

    def _draw(self, lines: list[str]) -> None:
        text = "".join(self._paint(cut(line, self._width)) + "\n" for line in lines)
        if text == self._shown:
            return
        back = _HOME.format(self._height) if self._height else "\r"
        self._stream.write(back + _CLEAR_DOWN + text)
        self._stream.flush()
        self._height, self._shown = len(lines), text


def describe_step(step: StepLine) -> str:
    detail = f"  {step.detail}" if step.detail else ""
    return f"{_MARKS[step.outcome]} {step.name:<14} {step.seconds:8.3f} s{detail}"


def table(story: Story) -> list[str]:
    """A row for each step: mark, name, seconds, its share of the boot as a bar, detail."""
    if not story.steps:
        return []
    kernel = [] if story.kernel_s is None else [f"· {'kernel':<14} {story.kernel_s:8.3f} s  until PID 1's first line"]
    longest = max(step.line.seconds for step in story.steps) or 1.0
    rows = []
    for step in story.steps:
        bar = "▇" * max(1, round(BAR_WIDTH * step.line.seconds / longest))
        mark, name = _MARKS[step.line.outcome], step.line.name
        rows.append(f"{mark} {name:<14} {step.line.seconds:8.3f} s  {bar:<{BAR_WIDTH}} {step.line.detail}".rstrip())
    return [*kernel, *rows, *(f"! {text}" for text in story.warnings)]


def running(story: Story, now_s: float) -> list[str]:
    sign = _SPINNER[int(now_s * 10) % len(_SPINNER)]
    if story.ready is not None:
        return [f"{sign} {now_s:6.1f} s  {headline(story)}; waiting for the agent to end"]
    if story.lines == 0:
        return [f"{sign} {now_s:6.1f} s  waiting for the guest's first word"]
    return [f"{sign} {now_s:6.1f} s  {'next step' if story.steps else 'kernel'} is running"]


def tail(story: Story, count: int) -> list[str]:
    return [f"  | {line}" for line in story.tail[-count:]]


def agent_words(story: Story) -> list[str]:
    """The last lines that are not ours: in a good run the agent's, in a bad one whoever spoke last."""
    return ["", *tail(story, TAIL_LINES)] if story.tail else []


def headline(story: Story) -> str:
    ready = story.ready
    if ready is None:
        return "not ready"
    return f"READY in {ready.seconds:.3f} s mode={ready.mode} gpus={ready.gpus} cdi={ready.cdi} agent={ready.agent}"


def conclusion(run: Run, judgement: Judgement) -> list[str]:
    """The last lines of every view: verdict, reason, remedy, and where the console is kept."""
    mark = _MARKS["ok" if judgement.is_good else "fail"]
    lines = [f"{mark} {headline(run.story)}"] if run.story.ready else []
    code = "" if judgement.code in ("-", "OK") else f" [{judgement.code}]"
    lines.append(f"{mark} {judgement.what}{code}, {run.seconds:.1f} s in all")
    if not judgement.is_good:
        lines += [f"  what to do: {judgement.hint}"] if judgement.hint else []
        shows_fatal = any(isinstance(line, Trouble) for line in run.story.verdicts)
        lines += [] if shows_fatal else tail(run.story, 6)
    lines.append(f"  console: {run.console}")
    return lines


def cut(line: str, width: int) -> str:
    return line if len(line) < width else line[:max(width - 2, 1)] + "…"


def paint(line: str) -> str:
    """Colour by the mark that a line begins with."""
    for outcome, mark in _MARKS.items():
        if line.startswith(mark + " "):
            return f"\x1b[{_COLOURS[outcome]}m{line}\x1b[0m" if outcome != "ok" else f"\x1b[32m{mark}\x1b[0m{line[1:]}"
    return f"\x1b[2m{line}\x1b[0m" if line.startswith("  | ") else line


def choose_view(stream: TextIO, *, is_json: bool, everything: bool,
                environment: Mapping[str, str] = os.environ) -> View:
    if is_json:
        return Silent()
    if everything or not stream.isatty() or environment.get("TERM") == "dumb":
        return Plain(stream, everything=everything)
    return Live(stream, in_colour=not environment.get("NO_COLOR"))
