# SPDX-License-Identifier: Apache-2.0
"""The boot report as a picture: one bar for the whole boot, and below it PID 1's share, a lane per step.

Plain SVG 1.1, no scripts, no external fonts; the full text of a bar is its tooltip. What ran side by side lies above
each other on one time axis. All text is the report's, made printable and escaped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from math import floor, log10
from typing import NamedTuple

from nvrc.report.report import Report, SpanRecord, StepRecord
from nvrc.vocabulary.console import headline, printable, sentence
from nvrc.vocabulary.gpu import GpuState
from nvrc.vocabulary.verdict import Outcome, Verdict

WIDTH, MARGIN, LABELS, ROOM_RIGHT = 1120, 24, 150, 170
LANES_TOP, LANE, BAR, WAIT_BAR = 208, 26, 16, 5
TEXT, FAINT, GRID = "#1f2733", "#5c6675", "#e1e5ea"
KERNEL, INTERPRETER, OWN = "#8a94a3", "#8063b8", "#2f74c0"
WAITED, BESIDE = "#a9cbef", "#5b9e6f"
COLOURS = {
    Outcome.OK: OWN, Outcome.SKIP: "#b4bcc7", Outcome.WARN: "#d88a00", Outcome.FAIL: "#c62f1d",
    Outcome.RUNNING: "#7fb0e3", Outcome.PENDING: "#b4bcc7",
}
FONT = "'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif"
_SMALLEST_SPAN_S, _LONGEST_S = 1e-6, 1e9
CHAR_W = 7.6  # width of a character at the usual size, a little too much
_LINE_CHARS, _NAME_CHARS, _LABEL_CHARS = 140, 19, 60


class Axis(NamedTuple):
    """Seconds to pixels."""

    start_s: float
    end_s: float
    left: float
    right: float

    def x(self, moment_s: float) -> float:
        share = (moment_s - self.start_s) / max(self.end_s - self.start_s, _SMALLEST_SPAN_S)
        return self.left + (self.right - self.left) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Moments at round distances from the start, about eight of them."""
        span = max(self.end_s - self.start_s, _SMALLEST_SPAN_S)
        unit = 10.0 ** floor(log10(span / 8))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * 8 >= span)
        return [self.start_s + index * step for index in range(int(span / step + 1e-6) + 1)]


def render_svg(report: Report) -> str:
    report = _clamped(report)
    last = max([report.started_s, *(m for step in report.steps for m in (step.start_s, step.end_s) if m is not None)])
    ended_s = last if report.ended_s is None else max(report.ended_s, report.started_s)
    own = Axis(report.started_s, max(ended_s, last), MARGIN + LABELS, WIDTH - MARGIN - ROOM_RIGHT)
    bottom = LANES_TOP + LANE * (len(report.steps) + len(report.beside))
    remarks = list(_remarks(report))
    height = bottom + 52 + 20 * len(remarks)
    lanes = list(enumerate(report.steps))
    below = list(enumerate(report.beside, start=len(report.steps)))
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" font-family="{FONT}" font-size="13" fill="{TEXT}">',
        f"<title>{escape(_headline(report))}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        draw_text(MARGIN, 38, _headline(report), size=19, weight="bold"),
        *_overview(report, own),
        *_grid(own, bottom),
        *_verdict_mark(report, own, bottom),
        *(part for index, step in lanes for part in _lane(step, own, LANES_TOP + LANE * index, ended_s)),
        *(part for index, span in below for part in _span(span, own, LANES_TOP + LANE * index)),
        *(draw_text(MARGIN, bottom + 58 + 20 * index, line, fill=colour)
          for index, (line, colour) in enumerate(remarks)),
        "</svg>", ""))


def _clamped(report: Report) -> Report:
    """The same with moments that a picture can have: a report from a broken guest may say anything."""
    def moment(value_s: float | None) -> float | None:
        return None if value_s is None else min(max(value_s, 0.0), _LONGEST_S)

    steps = tuple(replace(step, start_s=moment(step.start_s), end_s=moment(step.end_s)) for step in report.steps)
    beside = tuple(replace(span, start_s=moment(span.start_s) or 0.0, end_s=moment(span.end_s) or 0.0)
                   for span in report.beside)
    return replace(report, steps=steps, beside=beside, started_s=moment(report.started_s) or 0.0,
                   ended_s=moment(report.ended_s), interpreter_s=moment(report.interpreter_s))


def _headline(report: Report) -> str:
    gpus = f", {len(report.gpus)} GPUs" if report.gpus else ""
    mode = f", mode {report.mode}" if report.mode else ""
    return printable(f"{report.program}: {report.verdict.value}{mode}{gpus}", 100)


def _overview(report: Report, own: Axis) -> Iterator[str]:
    """The whole boot on one bar, and two lines that open its last part into the lanes."""
    whole = Axis(0.0, own.end_s, MARGIN, WIDTH - MARGIN)
    executed_s = report.started_s - (report.interpreter_s or 0.0)
    shares = [("kernel", 0.0, executed_s, KERNEL),
              ("loader and interpreter", executed_s, report.started_s, INTERPRETER),
              ("init", report.started_s, own.end_s, OWN)]
    legend_x = float(MARGIN)
    for name, start_s, end_s, colour in shares:
        if name == "loader and interpreter" and report.interpreter_s is None:
            continue
        label = f"{name} {_duration(end_s - start_s)}"
        left, right = whole.x(start_s), whole.x(end_s)
        yield _bar(left, 92, right - left, 24, colour=colour, tip=label)
        yield _bar(legend_x, 63, 12, 12, colour=colour, tip=label)
        yield draw_text(legend_x + 18, 74, label)
        legend_x += 46 + CHAR_W * len(label)
    yield draw_text(WIDTH - MARGIN, 74, f"{_duration(own.end_s)} since the kernel started", fill=FAINT, anchor="end")
    left, right = whole.x(report.started_s), whole.x(own.end_s)
    yield (f'<path d="M{left:.1f} 116 L{own.left:.1f} 160 H{own.right:.1f} L{right:.1f} 116 Z" '
           f'fill="{OWN}" fill-opacity="0.09"/>')


def _grid(axis: Axis, bottom: int) -> Iterator[str]:
    yield draw_text(MARGIN, LANES_TOP - 16, "step", fill=FAINT)
    yield _bar(MARGIN + 40, LANES_TOP - 20, 26, WAIT_BAR, colour=WAITED, tip="")
    yield draw_text(MARGIN + 71, LANES_TOP - 16, "waited", fill=FAINT, size=12)
    for moment_s in axis.ticks():
        x = axis.x(moment_s)
        yield f'<line x1="{x:.1f}" y1="{LANES_TOP - 8}" x2="{x:.1f}" y2="{bottom + 4}" stroke="{GRID}"/>'
        offset_s = moment_s - axis.start_s
        label = f"{offset_s * 1000:g} ms" if axis.end_s - axis.start_s < 1 else f"{offset_s:g} s"
        yield draw_text(x, LANES_TOP - 16, label, fill=FAINT, anchor="middle", size=12)


def _lane(step: StepRecord, axis: Axis, top: int, ended_s: float) -> Iterator[str]:
    trouble = step.outcome in (Outcome.FAIL, Outcome.WARN)
    weight = "bold" if trouble else "normal"
    if step.start_s is None or step.outcome in (Outcome.SKIP, Outcome.PENDING):
        at = axis.left if step.start_s is None else axis.x(step.start_s)
        yield draw_text(MARGIN, top + 18, printable(step.name, _NAME_CHARS), fill=FAINT)
        word = "skipped" if step.outcome is Outcome.SKIP else "not reached"
        yield draw_text(at + 6, top + 18, word, fill=FAINT, size=12, halo=True)
        return
    end_s = ended_s if step.end_s is None or step.outcome is Outcome.RUNNING else step.end_s
    took = _duration(max(0.0, end_s - step.start_s))
    label = f"{took}, not finished" if step.outcome is Outcome.RUNNING else f"{took} {step.code}".rstrip()
    left, width = axis.x(step.start_s), max(2.5, axis.x(end_s) - axis.x(step.start_s))
    yield draw_text(MARGIN, top + 18, printable(step.name, _NAME_CHARS), weight=weight)
    yield _bar(left, top + 5, width, BAR, colour=COLOURS[step.outcome],
               tip=f"{step.name}: {label} {step.detail}".rstrip())
    if step.waited_s and end_s > step.start_s:
        share = min(1.0, max(0.0, step.waited_s) / (end_s - step.start_s))
        yield _bar(left, top + 5 + BAR - WAIT_BAR, width * share, WAIT_BAR, colour=WAITED,
                   tip=f"{step.name} waited {_duration(step.waited_s)} for driver, daemons or NVIDIA's library")
    yield _bar_label(left, left + width, top + 18, printable(label, _LABEL_CHARS), weight=weight,
                     colour=COLOURS[step.outcome] if trouble else TEXT)


def _span(span: SpanRecord, axis: Axis, top: int) -> Iterator[str]:
    """What another process did meanwhile."""
    label = _duration(max(0.0, span.end_s - span.start_s))
    left, width = axis.x(span.start_s), max(2.5, axis.x(span.end_s) - axis.x(span.start_s))
    yield draw_text(MARGIN, top + 18, printable(span.name, _NAME_CHARS), fill=FAINT)
    yield _bar(left, top + 5, width, BAR, colour=BESIDE, tip=f"{span.name}, in the worker: {label}")
    yield _bar_label(left, left + width, top + 18, label, weight="normal", colour=TEXT)


def _bar_label(left: float, right: float, y: int, label: str, *, weight: str, colour: str) -> str:
    """To the right of the bar; where the picture ends there, in the bar, or to its left when it is short."""
    needed = CHAR_W * len(label) + 14
    if right + needed <= WIDTH:
        return draw_text(right + 7, y, label, size=12, weight=weight, fill=colour, halo=True)
    if right - left >= needed:
        return draw_text(right - 7, y, label, size=12, weight=weight, fill="#ffffff", anchor="end")
    return draw_text(left - 7, y, label, size=12, weight=weight, fill=colour, anchor="end", halo=True)


def _verdict_mark(report: Report, axis: Axis, bottom: int) -> Iterator[str]:
    if report.ended_s is None:
        return
    x = axis.x(report.ended_s)
    colour = COLOURS[Outcome.FAIL] if report.verdict is Verdict.FAILED else TEXT
    yield (f'<line x1="{x:.1f}" y1="{LANES_TOP - 8}" x2="{x:.1f}" y2="{bottom + 8}" stroke="{colour}" '
           'stroke-width="1.5" stroke-dasharray="4 3"/>')
    word = report.failure.code if report.failure else report.verdict.value
    yield draw_text(x, bottom + 24, f"{word} after {_duration(report.ended_s - report.started_s)}", fill=colour,
                anchor="middle", weight="bold")


def _remarks(report: Report) -> Iterator[tuple[str, str]]:
    red, amber = COLOURS[Outcome.FAIL], COLOURS[Outcome.WARN]
    if report.failure:
        yield from ((line, red) for line in _wrapped(headline(report.failure)))
        yield from ((line, TEXT) for line in _wrapped(report.failure.hint))
    for trouble in report.troubles:
        yield from ((line, amber) for line in _wrapped(sentence(trouble)))
    for gpu in report.gpus:
        took = "" if gpu.seconds is None else f" in {_duration(gpu.seconds)}"
        lost = gpu.state in (GpuState.FAILED, GpuState.LOST)
        yield f"{gpu.bdf} {gpu.state.value}{took} {gpu.uuid} {gpu.code}".rstrip(), red if lost else TEXT
    if found := _found(report):
        yield from ((line, TEXT) for line in _wrapped(found))
    for text in report.notes:
        yield from ((line, FAINT) for line in _wrapped(f"note: {text}"))


def _found(report: Report) -> str:
    """What containers find, in one sentence."""
    settings = dict.fromkeys(f"{row.name}={row.asked}" for row in report.settings)
    cut = sum(bool(row.profiles) for row in report.mig)
    parts = (*settings, *([f"MIG on {cut} GPUs"] if cut else []),
             *([f"confidential mode {report.confidential.mode}"] if report.confidential else []),
             *([f"{report.cdi.devices} CDI devices, driver {report.cdi.driver}"] if report.cdi else []),
             *([f"ready state {report.ready.outcome}"] if report.ready else []))
    return "; ".join(parts)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(printable(text), _LINE_CHARS)


def _duration(value_s: float) -> str:
    if abs(value_s) >= 10:
        return f"{value_s:.1f} s"
    return f"{value_s:.2f} s" if abs(value_s) >= 1 else f"{value_s * 1000:.3g} ms" if value_s else "0"


def _bar(x: float, y: float, width: float, height: float, *, colour: str, tip: str) -> str:
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{colour}">'
            f"<title>{escape(tip)}</title></rect>")


def draw_text(x: float, y: float, text: str, *, size: int = 13, weight: str = "normal", fill: str = TEXT,
          anchor: str = "start", halo: bool = False) -> str:
    outline = ' stroke="#ffffff" stroke-width="4" paint-order="stroke"' if halo else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
            f'text-anchor="{anchor}"{outline}>{escape(text)}</text>')


def escape(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
