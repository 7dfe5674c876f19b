# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of an image are, as a picture: a squarified treemap in SVG, slices outside, files inside.

After Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000). Plain SVG with titles, no script, no outside reference.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from nvrc_build.papers.inventory import Inventory

_COLOURS = ("#35618f", "#b3602a", "#3f7f3f", "#9c3f3c", "#6f5596",
            "#735548", "#a85a8a", "#606060", "#7f7b20", "#2f7f8a")
_WIDTH, _HEIGHT, _TITLE = 1200.0, 760.0, 40.0
_BAND = 16.0
_LETTER = 6.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    x: float
    y: float
    width: float
    height: float


def squarify(sizes: Sequence[int], box: Box) -> Iterator[Box]:
    """One box per size (sorted, largest first, all above 0), together filling `box`, each as square as can be."""
    left = list(sizes)
    while left:
        scale = box.width * box.height / sum(left)
        side = min(box.width, box.height)
        count = _row_length(left, scale, side)
        area = sum(left[:count]) * scale
        thick = area / side if side else 0.0
        along = 0.0
        for size in left[:count]:
            length = size * scale / thick if thick else 0.0
            yield (Box(x=box.x, y=box.y + along, width=thick, height=length) if box.height <= box.width
                   else Box(x=box.x + along, y=box.y, width=length, height=thick))
            along += length
        box = (Box(x=box.x + thick, y=box.y, width=box.width - thick, height=box.height) if box.height <= box.width
               else Box(x=box.x, y=box.y + thick, width=box.width, height=box.height - thick))
        left = left[count:]


def _row_length(sizes: Sequence[int], scale: float, side: float) -> int:
    """How many go into one row: as long as the worst shape in it gets no worse."""
    def worst(count: int) -> float:
        row = [size * scale for size in sizes[:count]]
        total = sum(row)
        return max(side * side * row[0] / (total * total), total * total / (side * side * row[-1])) if total else 0.0

    count = 1
    while count < len(sizes) and side and worst(count + 1) <= worst(count):
        count += 1
    return count


def render_treemap(image: Inventory) -> str:
    weights = {name: size for name, (_, size) in image.weights().items() if size}
    total = sum(weights.values())
    head = f"{image.image}: {megabytes(total)} in {sum(1 for file in image.files.values() if file.size)} files"
    area = Box(x=0, y=_TITLE, width=_WIDTH, height=_HEIGHT - _TITLE)
    parts = [part for number, ((name, size), box) in enumerate(
        zip(weights.items(), squarify(list(weights.values()), area), strict=True))
        for part in _slice_boxes(image, name, size, box, _COLOURS[number % len(_COLOURS)])]
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" fill="white"/>',
        f'<text x="8" y="26" font-size="18">{escape(head)}</text>', *parts, "</svg>", ""))


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _slice_boxes(image: Inventory, name: str, size: int, box: Box, colour: str) -> Iterator[str]:
    yield _rect(box, colour, f"slice {name}: {megabytes(size)}", stroke=2)
    yield _label(box, f"{name}  {megabytes(size)}", bold=True)
    inner = Box(x=box.x + 2, y=box.y + _BAND, width=max(box.width - 4, 0), height=max(box.height - _BAND - 2, 0))
    files = sorted((file for file in image.files.values() if file.slice == name and file.size),
                   key=lambda file: (-file.size, file.path))
    if inner.width <= 4 or inner.height <= 4:
        return
    for file, cell in zip(files, squarify([file.size for file in files], inner), strict=True):
        yield _rect(cell, "#ffffff", f"{file.path}: {megabytes(file.size)}", opacity=0.12)
        yield _label(cell, f"{posixpath.basename(file.path)} {megabytes(file.size)}")


def _rect(box: Box, colour: str, title: str, *, stroke: float = 0.5, opacity: float = 1.0) -> str:
    return (f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity}" stroke="white" stroke-width="{stroke}"><title>{escape(title)}</title></rect>')


def _label(box: Box, text: str, *, bold: bool = False) -> str:
    room = int((box.width - 8) / _LETTER)
    if box.height < 13 or room < 6:
        return ""
    shown = text if len(text) <= room else text[:room - 1] + "…"
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{box.x + 4:.1f}" y="{box.y + 12:.1f}" fill="white"{weight}>{escape(shown)}</text>'
