# SPDX-License-Identifier: Apache-2.0
"""`nvrc doctor --host`: the preflight as a table, as JSON, or as metrics for node_exporter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TextIO

from nvrc.preflight.export import export
from nvrc.preflight.host import Host
from nvrc.preflight.preflight import FINDINGS, Preflight, Result, judge
from nvrc.preflight.row import State
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import fold, width_of, wrap

NOT_A_HOST = (
    "not a Kata host: neither /opt/kata, nor a runtime of Kata in containerd's configuration, nor its shim was found"
)
MARKS = {State.GOOD: "ok", State.BAD: "BAD", State.WARNING: "warn", State.UNKNOWN: "?", State.UNUSED: "-"}


def run(root: str, node: str | None, out: TextIO, *, as_json: bool, folder: str | None = None) -> int:
    found = judge(Host(root, read_input(node) if node else b""))
    if folder:
        export(found, folder, time.time())
    if as_json:
        write_document(out, document(found))
    else:
        out.writelines(f"{line}\n" for line in show(found, width_of(out)))
    return 0 if found.is_good else 1


def document(found: Preflight) -> dict[str, object]:
    return {
        "kata_host": found.is_kata_host,
        "good": found.is_good,
        "counts": {state.value: found.count(state) for state in State},
        "rows": [
            {
                "name": result.row.name,
                "state": result.state.value,
                "asks": result.row.asks,
                "reads": result.row.reads,
                "judgements": [{"state": one.state.value, "what": one.what} for one in result.judgements],
                "reason": result.row.reason,
                "remedy": result.row.remedy,
                "command": result.row.command,
                "who": result.row.who,
            }
            for result in found.results
        ],
    }


def show(found: Preflight, width: int) -> Iterator[str]:
    if not found.is_kata_host:
        yield from wrap(NOT_A_HOST, width)
        return
    for result in found.results:
        yield from _show(result, width)
    yield ", ".join(f"{found.count(state)} {state.value}" for state in State if found.count(state))


def _show(result: Result, width: int) -> Iterator[str]:
    told = [one for one in result.judgements if one.state is result.state or one.state in FINDINGS]
    for index, one in enumerate(told):
        label = f"{result.row.name if index == 0 else '':20}"
        yield from wrap(printable(f"{MARKS[one.state]:5}{label} {one.what}"), width)
    if result.state in FINDINGS:
        yield from fold("why", result.row.reason, width)
        yield from fold("do", result.row.remedy, width)
        yield from fold("command", result.row.command, width)
        yield from fold("who", result.row.who, width)
