# SPDX-License-Identifier: Apache-2.0
"""The machine of a boot report as a picture: GPUs and NICs in the PCI tree, their NVLinks, and in red what is missing.

Plain SVG 1.1 like the timeline (svg.py). A column is a level of the tree, root buses on the left; a box that several
devices share stands beside the middle of them. What a red box lacks is its tooltip, and a line below the picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from nvrc.report.links import PlaceRecord
from nvrc.report.report import Report, Role
from nvrc.report.svg import CHAR_W, FAINT, FONT, TEXT, draw_text, escape
from nvrc.vocabulary.gpu import GpuState
from nvrc.vocabulary.jsonread import FormatError

LEFT, TOP, BOX_W, BOX_H, GAP_X, GAP_Y = 24, 72, 172, 40, 34, 14
FABRIC_GAP, FABRIC_W = 150, 96
# A report may come from a hostile guest. Trees of real machines are five bridges deep, and a bus has 32 places.
MOST_PLACES, DEEPEST, LONGEST = 512, 32, 900
MISSING, PCI, NVLINK = "#c62f1d", "#8a94a3", "#3f8f57"
FILLS = {"root": "#eef1f5", "bridge": "#f7f8fa", "GPU": "#e3f1e6", "NIC": "#e2ecf8", "": "#f1eadb"}


class Box(NamedTuple):
    """One place of the picture. `faults`: why it is red."""

    key: tuple[str, ...]    # root bus and bus ids, from the root down
    kind: str
    title: str
    note: str
    row: float
    faults: tuple[str, ...] = ()


def render_board(report: Report) -> str:
    boxes = place_boxes(report)
    depth = max((len(box.key) for box in boxes), default=1)
    rows = sum(1 for box in boxes if box.kind not in ("root", "bridge"))
    said = [f"{box.title} {box.key[-1]}: {fault}" for box in boxes for fault in box.faults] + list(_elsewhere(report))
    bottom = TOP + max(rows, 1) * (BOX_H + GAP_Y)
    linked = [(box, place) for box in boxes for place in report.places
              if place.bdf == box.key[-1] and (place.nvlinks or place.required)]
    right = LEFT + depth * (BOX_W + GAP_X)
    width = max(640, right + (FABRIC_GAP + FABRIC_W if linked else 0) + LEFT)
    lines = [piece for line in said for piece in textwrap.wrap(line[:LONGEST], int((width - 2 * LEFT) / CHAR_W))]
    height = bottom + 28 + 20 * max(len(lines), 1)
    at = {box.key: box for box in boxes}
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="{FONT}" font-size="13" fill="{TEXT}">',
        f"<title>{escape(_headline(report))}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        draw_text(LEFT, 34, _headline(report), size=19, weight="bold"),
        draw_text(LEFT, 54, "root buses on the left; green lines: NVLinks; red: missing", fill=FAINT),
        *(_wire(at[box.key[:-1]], box) for box in boxes if len(box.key) > 1),
        *_fabric(linked, right, _switches(report)),
        *(_draw(box) for box in boxes),
        *(draw_text(LEFT, bottom + 24 + 20 * index, line, fill=MISSING if lines else FAINT)
          for index, line in enumerate(lines or ["nothing is missing"])),
        "</svg>", ""))


def place_boxes(report: Report) -> tuple[Box, ...]:
    """Parents before their children. Devices take a row each, in the order of the tree."""
    names = name_devices(report)
    ways = sorted((place.root, *place.bridges, place.bdf) for place in report.places)
    rows = {way: float(row) for row, way in enumerate(ways)}
    by_bdf = {place.bdf: place for place in report.places}
    inner = sorted({way[:length] for way in ways for length in range(1, len(way))})
    boxes = [_inner(key, [row for way, row in rows.items() if way[:len(key)] == key], by_bdf, ways) for key in inner]
    boxes += [Box(way, names[way[-1]].rstrip("0123456789") if names[way[-1]][:3] in ("GPU", "NIC") else "",
                  names[way[-1]], _link(by_bdf[way[-1]]), row, tuple(_faults(report, by_bdf[way[-1]])))
              for way, row in rows.items()]
    return tuple(sorted(boxes, key=lambda box: (len(box.key), box.row)))


def _inner(key: tuple[str, ...], rows: list[float], places: dict[str, PlaceRecord], ways: list[tuple[str, ...]]) -> Box:
    middle = (min(rows) + max(rows)) / 2
    if len(key) > 1:
        return Box(key, "bridge", key[-1], "root port" if len(key) == 2 else "switch port", middle)
    nodes = sorted({places[way[-1]].numa for way in ways if way[0] == key[0]})
    known = ", ".join(str(node) for node in nodes if node >= 0)
    return Box(key, "root", key[0], f"NUMA node {known}" if known else "no NUMA node", middle)


def name_devices(report: Report) -> dict[str, str]:
    """`GPU0`, `NIC1`, by bus id, in the order of the bus. FormatError for a tree that no machine has: who draws it, or
    compares each device with each other, takes the square of its size.
    """
    if len(report.places) > MOST_PLACES:
        raise FormatError((f"places: {len(report.places)} devices; at most {MOST_PLACES} can be shown",))
    if deep := next((one.bdf for one in report.places if len(one.bridges) > DEEPEST), ""):
        raise FormatError((f"places: {deep[:LONGEST]} has more than {DEEPEST} bridges above it",))
    roles = {function.bdf: function.role for function in report.topology}
    names: dict[str, str] = {}
    for role, word in ((Role.GPU, "GPU"), (Role.NIC, "NIC")):
        here = [one.bdf for one in report.places if roles.get(one.bdf) is role]
        names |= {bdf: f"{word}{number}" for number, bdf in enumerate(here)}
    return {one.bdf: names.get(one.bdf, one.bdf) for one in report.places}


def _link(place: PlaceRecord) -> str:
    return f"{place.speed or '?'} x{place.width or '?'}"


def _faults(report: Report, place: PlaceRecord) -> Iterator[str]:
    if place.nvlinks < place.required:
        yield f"{place.nvlinks} of {place.required} NVLinks are active"
    if (place.speed, place.width) != (place.most_speed, place.most_width) and place.most_width not in ("", "0", "255"):
        yield f"its link is {_link(place)} and can be {place.most_speed} x{place.most_width}"
    for gpu in report.gpus:
        if gpu.bdf == place.bdf and gpu.state in (GpuState.FAILED, GpuState.LOST):
            yield f"it is {gpu.state.value}"
    for nic in report.nics:
        if nic.bdf == place.bdf and nic.code:
            yield f"withheld from containers ({nic.code})"
    for one in report.fabric:
        if one.gpu == place.bdf and (one.state, one.status) != ("completed", "success"):
            yield f"its registration with the NVLink fabric is {one.state}, {one.status}"


def _elsewhere(report: Report) -> Iterator[str]:
    """GPUs and NICs of the bus whose place the report does not have."""
    placed = {place.bdf for place in report.places}
    for function in report.topology:
        if function.role in (Role.GPU, Role.NIC) and function.bdf not in placed:
            yield f"{function.role.value.upper()} {function.bdf} ({function.ids}): its place is not in the report"


def _switches(report: Report) -> str:
    """What the NVLinks lead to, as far as it is on the bus."""
    roles = [function.role for function in report.topology]
    counts = ((roles.count(Role.NVSWITCH), "NVSwitches"), (roles.count(Role.MANAGEMENT_NIC), "switch ports"))
    return next((f"{count} {word}" for count, word in counts if count), "")


def _headline(report: Report) -> str:
    roles = [function.role for function in report.topology]
    gpus, nics = roles.count(Role.GPU), roles.count(Role.NIC)
    return f"{report.mode or 'machine'}: {gpus} GPU{'' if gpus == 1 else 's'}, {nics} NIC{'' if nics == 1 else 's'}"


def _corner(box: Box) -> tuple[float, float]:
    return LEFT + (len(box.key) - 1) * (BOX_W + GAP_X), TOP + box.row * (BOX_H + GAP_Y)


def _wire(parent: Box, child: Box) -> str:
    (left, top), (right, low) = _corner(parent), _corner(child)
    x, y, to_x, to_y = left + BOX_W, top + BOX_H / 2, right, low + BOX_H / 2
    colour = MISSING if child.faults else PCI
    return (f'<path d="M{x:.1f},{y:.1f} H{(x + to_x) / 2:.1f} V{to_y:.1f} H{to_x:.1f}" fill="none" stroke="{colour}" '
            'stroke-width="1.5"/>')


def _fabric(linked: list[tuple[Box, PlaceRecord]], right: float, note: str) -> Iterator[str]:
    """One box for all switches and peers, and a line to it from each GPU with the number of its NVLinks."""
    if not linked:
        return
    tops = [_corner(box)[1] for box, _ in linked]
    x, top, low = right + FABRIC_GAP - GAP_X, min(tops), max(tops) + BOX_H
    for box, place in linked:
        left, y = _corner(box)[0] + BOX_W, _corner(box)[1] + BOX_H / 2
        is_whole = place.nvlinks >= place.required
        label = str(place.nvlinks) if is_whole else f"{place.nvlinks} of {place.required}"
        yield (f'<path d="M{left:.1f},{y:.1f} H{x:.1f}" stroke="{NVLINK if is_whole else MISSING}" stroke-width="3" '
               f'fill="none"{"" if is_whole else " stroke-dasharray=" + chr(34) + "6 4" + chr(34)}/>')
        yield draw_text(x - 6, y - 6, label, anchor="end", fill=NVLINK if is_whole else MISSING)
    yield (f'<rect x="{x:.1f}" y="{top:.1f}" width="{FABRIC_W}" height="{low - top:.1f}" rx="4" fill="#e3f1e6" '
           f'stroke="{NVLINK}"/>')
    middle = (top + low) / 2
    yield draw_text(x + FABRIC_W / 2, middle + 5 - (8 if note else 0), "NVLink", anchor="middle")
    if note:
        yield draw_text(x + FABRIC_W / 2, middle + 13, note, size=11, anchor="middle", fill=FAINT)


def _draw(box: Box) -> str:
    x, y = _corner(box)
    stroke = MISSING if box.faults else PCI
    tip = "; ".join((f"{box.title} {box.key[-1]}", *box.faults))
    title = box.title if box.kind in ("root", "bridge") else f"{box.title}  {box.key[-1]}"
    return (f'<g><title>{escape(tip)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{BOX_W}" height="{BOX_H}" rx="4" '
            f'fill="{FILLS[box.kind]}" stroke="{stroke}" stroke-width="{2 if box.faults else 1}"/>'
            + draw_text(x + 8, y + 17, title, fill=MISSING if box.faults else TEXT)
            + draw_text(x + 8, y + 33, box.note, size=11, fill=FAINT) + "</g>")
