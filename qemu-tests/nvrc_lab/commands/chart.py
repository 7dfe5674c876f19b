# SPDX-License-Identifier: Apache-2.0
"""The bench as a picture: a bar for each scenario and init, from kernel entry to agent and container. SVG; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from nvrc_lab.watch.figures import Row

PARTS = (("kernel", "#9aa5b1"), ("init_to_agent", "#3b82c4"), ("agent_to_container", "#7fb069"))
WIDTH, LEFT, RIGHT, ROW, TOP = 900, 230, 90, 26, 54


def draw(rows: Sequence[Row]) -> str:
    longest = max((sum(_parts(row)) for row in rows), default=0.0) or 1.0
    height = TOP + ROW * len(rows) + 20
    body = "\n".join([*_legend(), *(line for at, row in enumerate(rows) for line in _bar(row, at, longest))])
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n'
            '</svg>\n')


def _parts(row: Row) -> list[float]:
    return [row.figures[name].median if name in row.figures else 0.0 for name, _ in PARTS]


def _legend() -> Iterator[str]:
    yield '<text x="12" y="20" font-size="15">From kernel entry to the agent and its container, median</text>'
    for at, (name, colour) in enumerate(PARTS):
        yield f'<rect x="{LEFT + at * 190}" y="30" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{LEFT + at * 190 + 18}" y="41">{escape(name.replace("_", " "))}</text>'


def _bar(row: Row, at: int, longest: float) -> Iterator[str]:
    y, x = TOP + at * ROW, float(LEFT)
    yield f'<text x="12" y="{y + 15}">{escape(row.scenario)}, {escape(row.init)}</text>'
    for (name, colour), value in zip(PARTS, _parts(row), strict=True):
        width = value / longest * (WIDTH - LEFT - RIGHT)
        if width > 0:
            yield (f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 8}" fill="{colour}">'
                   f'<title>{escape(name)}: {value:.1f} ms</title></rect>')
        x += width
    yield f'<text x="{x + 6:.1f}" y="{y + 15}">{sum(_parts(row)):.0f} ms</text>'
