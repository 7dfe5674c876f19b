# SPDX-License-Identifier: Apache-2.0
"""What a row of the preflight is, and what it can come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guest_cdi.lean.light import Enum
from nvrc.preflight.host import Host
from nvrc.vocabulary.errors import HOST


class State(Enum):
    """`unknown`: what it reads is missing here or may not be read. `unused`: nothing on this host depends on it."""

    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"
    UNKNOWN = "unknown"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Judgement:
    state: State
    what: str


Judge = Callable[[Host], Iterator[Judgement]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One condition. `command` shows or changes it, as it can be pasted; `reads` is what the row looks at."""

    name: str
    asks: str
    reads: str
    reason: str
    remedy: str
    command: str
    judge: Judge
    who: str = HOST


def good(what: str) -> Judgement:
    return Judgement(State.GOOD, what)


def bad(what: str) -> Judgement:
    return Judgement(State.BAD, what)


def warning(what: str) -> Judgement:
    return Judgement(State.WARNING, what)


def unknown(what: str) -> Judgement:
    return Judgement(State.UNKNOWN, what)


def unused(what: str) -> Judgement:
    return Judgement(State.UNUSED, what)
