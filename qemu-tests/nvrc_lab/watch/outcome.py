# SPDX-License-Identifier: Apache-2.0
"""What a run told, gathered: the story of the console, the boot report, what agent and container said. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nvrc.report.report import Report, from_json
from nvrc.vocabulary.transcript import parse_report_piece
from nvrc_lab.watch.watch import Run

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_NODE = re.compile(r"node (\S+) (\d+):(\d+) mode=(\d+) open=(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    major: int
    minor: int
    opened: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the container's program printed; `said` holds what the engine said about it.

    `forbidden`: what was to be opened by nodes that the container made itself.
    """

    ran: bool
    status: int | None
    nodes: Mapping[str, Node]
    libraries: tuple[str, ...]
    env: Mapping[str, str]
    cached: bool
    forbidden: tuple[str, ...]
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """`report` is None when the machine told none; `document` is the same as plain JSON; `refusal` is what a
    runtime was told that asked for an agent.
    """

    run: Run
    lines: tuple[str, ...]
    report: Report | None
    report_problem: str
    document: Json
    agent: tuple[str, ...]
    container: Container | None
    attaches: tuple[str, ...]
    refusal: str | None


def gather(run: Run, lines: Sequence[str]) -> Told:
    text = "".join(_report_pieces(lines))
    report, problem = _read_report(text)
    return Told(
        run=run, lines=tuple(lines), report=report, report_problem=problem,
        document=json.loads(text) if report is not None else None,
        agent=_after(lines, "agent: "), container=_container(lines),
        attaches=tuple(line.removeprefix("gpu ") for line in _after(lines, "engine: ") if line.startswith("gpu ")),
        refusal=next(iter(_after(lines, "runtime: refused ")), None),
    )


def _report_pieces(lines: Sequence[str]) -> list[str]:
    """Pieces of one line of JSON, in order. Where a machine reports twice, the last report counts."""
    pieces: list[str] = []
    for line in lines:
        piece = parse_report_piece(line)
        if piece is not None:
            pieces = [piece] if piece.startswith("{") and _is_whole(pieces) else [*pieces, piece]
    return pieces


def _is_whole(pieces: Sequence[str]) -> bool:
    try:
        json.loads("".join(pieces))
    except ValueError:
        return False
    return True


def _read_report(text: str) -> tuple[Report | None, str]:
    if not text:
        return None, "no report on the console"
    try:
        return from_json(text.encode()), ""
    except ValueError as err:
        return None, f"the report on the console cannot be read: {err}"


def _after(lines: Sequence[str], prefix: str) -> tuple[str, ...]:
    """The kernel may have put its time before a line."""
    return tuple(line.partition(prefix)[2] for line in lines if prefix in line)


def _container(lines: Sequence[str]) -> Container | None:
    said, seen = _after(lines, "engine: "), _after(lines, "container: ")
    if not said and not seen:
        return None
    nodes = {found[1]: Node(major=int(found[2]), minor=int(found[3]), opened=found[5])
             for found in map(_NODE.match, seen) if found}
    status = next((re.search(r"ended status=(-?\d+)", line) for line in said if line.startswith("ended")), None)
    return Container(
        ran=bool({"cuda 42", "plain"} & set(seen)) and "made all" in seen,
        status=int(status[1]) if status else None, nodes=nodes, said=said,
        libraries=tuple(line.split()[1] for line in seen if line.startswith("library ")),
        env=dict(line.removeprefix("env ").partition("=")[::2] for line in seen if line.startswith("env ")),
        cached="cached libcuda.so.1 yes" in seen,
        forbidden=tuple(line for line in seen if line.startswith("made nvidia")),
    )
