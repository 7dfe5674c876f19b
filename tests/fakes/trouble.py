# SPDX-License-Identifier: Apache-2.0
"""Troubles, and the lines that tell them, in the short form that tables of tests want."""

from __future__ import annotations

from collections.abc import Iterable

from nvrc.vocabulary.console import sentence, verdict_fatal
from nvrc.vocabulary.trouble import Trouble


def trouble(code: str, step: str, what: str, hint: str = "") -> Trouble:
    return Trouble(code=code, step=step, what=what, hint=hint)


def fatal_line(code: str, step: str, what: str, hint: str) -> str:
    return verdict_fatal(trouble(code, step, what, hint))


def told(troubles: Iterable[Trouble | None]) -> tuple[str, ...]:
    """As the console has them."""
    return tuple(sentence(one) for one in troubles if one is not None)
