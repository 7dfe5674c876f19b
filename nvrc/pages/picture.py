# SPDX-License-Identifier: Apache-2.0
"""Prints docs/machine.svg: the steps of the boot with what each needs, and the processes of a machine that is up.

Made of the boot table and the table of daemons. A column is a step that could run at that time at the earliest; an
arrow that follows from others is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

from nvrc.boot import BOOT
from nvrc.engine.conditions import always, never
from nvrc.engine.table import DEGRADE, Step
from nvrc.services import table

SERVICES = tuple(value for value in vars(table).values() if isinstance(value, table.Service))
BOX_W, BOX_H, GAP_X, GAP_Y, LEFT, TOP = 104, 26, 34, 16, 16, 64
ALL, SOME, LINE, TEXT = "#e8f0e0", "#dbe8f6", "#8a94a0", "#20262c"
# Who starts whom, beside the daemons of the table: name, what it is, parent.
PROCESSES = (
    ("kernel", "starts one program", ""),
    ("PID 1", "nvrc: boot, then supervise", "kernel"),
    ("worker", "NVIDIA's library, CDI document", "PID 1"),
    ("kata-agent", "PID 1 of a namespace", "PID 1"),
    ("containers", "CDI devices, guest-cdi hooks", "kata-agent"),
)


def main() -> int:
    sys.stdout.write(render())
    return 0


def render() -> str:
    columns = arrange()
    height = TOP + max(len(names) for names in columns) * (BOX_H + GAP_Y)
    width = LEFT * 2 + len(columns) * (BOX_W + GAP_X) - GAP_X
    body = [_title(LEFT, 24, "Steps of the boot, and what each needs"),
            _note(LEFT, 44, "green: every machine; blue: some machines; dashed: its failure degrades; "
                            "double edge: waits on a thread of its own")]
    body += [*_steps(columns), *_processes(height + 24)]
    total = height + 24 + 32 + (len(PROCESSES) + len(SERVICES)) * 34 + 8
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}" '
            'role="img" font-family="sans-serif" font-size="12">\n'
            f'<title>The steps of the boot and the processes of the guest</title>\n'
            f'<rect width="{width}" height="{total}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n")


def arrange() -> tuple[tuple[str, ...], ...]:
    """The names by column: one more than the latest of what a step needs."""
    rows = {step.name: step for step in BOOT}
    depth = {name: _depth(name, rows) for name in rows}
    return tuple(tuple(name for name in rows if depth[name] == column) for column in range(max(depth.values()) + 1))


def _depth(name: str, rows: Mapping[str, Step]) -> int:
    return max((_depth(need, rows) + 1 for need in rows[name].needs), default=0)


def direct_needs(step: Step, rows: Mapping[str, Step]) -> Iterator[str]:
    """Needs that do not follow from another need."""
    for need in step.needs:
        if not any(need in _all_needs(other, rows) for other in step.needs):
            yield need


def _all_needs(name: str, rows: Mapping[str, Step]) -> set[str]:
    return set(rows[name].needs).union(*(_all_needs(need, rows) for need in rows[name].needs))


def _steps(columns: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    rows = {step.name: step for step in BOOT}
    places = {name: (LEFT + column * (BOX_W + GAP_X), TOP + row * (BOX_H + GAP_Y))
              for column, names in enumerate(columns) for row, name in enumerate(names)}
    for name, step in rows.items():
        x, y = places[name]
        for need in direct_needs(step, rows):
            from_x, from_y = places[need]
            yield _curve(from_x + BOX_W, from_y + BOX_H // 2, x, y + BOX_H // 2)
    for name, step in rows.items():
        yield _box(*places[name], BOX_W, name, ALL if step.when is always else SOME,
                   is_dashed=step.on_failure is DEGRADE, is_double=step.blocks is not never)


def _processes(top: int) -> Iterator[str]:
    """A tree, a line each: who is started by whom, and what for."""
    yield _title(LEFT, top + 16, "Processes of a guest with GPUs, by who starts them")
    told = [*PROCESSES[:3], *((service.name, f"started by step {service.step}", "PID 1") for service in SERVICES),
            *PROCESSES[3:]]
    parents = {name: parent for name, _, parent in told}
    places: dict[str, tuple[int, int]] = {}
    for number, (name, about, parent) in enumerate(told):
        x, y = LEFT + 40 * _generation(name, parents), top + 32 + number * 34
        places[name] = (x, y)
        if parent:
            from_x, from_y = places[parent]
            yield (f'<path d="M{from_x + 16} {from_y + BOX_H} V{y + BOX_H // 2} H{x}" fill="none" stroke="{LINE}"/>')
        yield _box(x, y, 150, name, ALL if name in ("kernel", "PID 1", "kata-agent", "containers") else SOME)
        yield _note(x + 160, y + 17, about)


def _generation(name: str, parents: Mapping[str, str]) -> int:
    return 1 + _generation(parents[name], parents) if parents[name] else 0


def _box(x: int, y: int, width: int, name: str, fill: str, *, is_dashed: bool = False, is_double: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if is_dashed else ""
    second = (f'<rect x="{x + 3}" y="{y + 3}" width="{width - 6}" height="{BOX_H - 6}" rx="2" fill="none" '
              f'stroke="{LINE}" stroke-width="0.7"/>' if is_double else "")
    return (f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_H}" rx="4" fill="{fill}" stroke="{LINE}"{dashes}/>'
            f'{second}<text x="{x + width // 2}" y="{y + 17}" text-anchor="middle" fill="{TEXT}">{escape(name)}</text>')


def _curve(from_x: int, from_y: int, to_x: int, to_y: int) -> str:
    middle = (from_x + to_x) // 2
    return (f'<path d="M{from_x} {from_y} C{middle} {from_y} {middle} {to_y} {to_x} {to_y}" fill="none" '
            f'stroke="{LINE}"/>')


def _title(x: int, y: int, words: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="15" font-weight="bold" fill="{TEXT}">{escape(words)}</text>'


def _note(x: int, y: int, words: str) -> str:
    return f'<text x="{x}" y="{y}" fill="#5a6570">{escape(words)}</text>'


if __name__ == "__main__":
    sys.exit(main())
