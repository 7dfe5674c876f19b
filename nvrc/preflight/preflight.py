# SPDX-License-Identifier: Apache-2.0
"""All rows against one host. A row that fails in itself is a row that could not be judged, never a good one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nvrc.preflight.host import Host, SlowError
from nvrc.preflight.kata import is_kata_host
from nvrc.preflight.row import Judgement, Row, State, bad, unknown
from nvrc.preflight.rows import ROWS

# The worst first; a row is as good as its worst judgement.
ORDER = (State.BAD, State.WARNING, State.UNKNOWN, State.GOOD, State.UNUSED)
FINDINGS = (State.BAD, State.WARNING)


@dataclass(frozen=True, slots=True)
class Result:
    row: Row
    judgements: tuple[Judgement, ...]

    @property
    def state(self) -> State:
        return min((one.state for one in self.judgements), key=ORDER.index)


@dataclass(frozen=True, slots=True)
class Preflight:
    """`results` is empty on a machine that is not a Kata host."""

    is_kata_host: bool
    results: tuple[Result, ...]

    def count(self, state: State) -> int:
        return sum(result.state is state for result in self.results)

    @property
    def is_good(self) -> bool:
        return self.is_kata_host and not any(result.state in FINDINGS for result in self.results)


def judge(host: Host, rows: Sequence[Row] = ROWS) -> Preflight:
    if not _is_kata_host(host):
        return Preflight(False, ())
    return Preflight(True, tuple(Result(row, _judge(row, host)) for row in rows))


def _is_kata_host(host: Host) -> bool:
    try:
        return is_kata_host(host)
    except SlowError:
        return True  # and no row of it is judged


def _judge(row: Row, host: Host) -> tuple[Judgement, ...]:
    try:
        found = tuple(row.judge(host))
    except SlowError as err:
        return (bad(f"it was not judged: {err}"),)
    except Exception as err:
        return (unknown(f"it could not be judged: {type(err).__name__}: {err}"),)
    return found or (unknown("it could not be judged"),)
