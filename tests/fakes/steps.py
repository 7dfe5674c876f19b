# SPDX-License-Identifier: Apache-2.0
"""Steps that are no modules, for tables of a test's own: `Step("name", does=Doing(action))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nvrc.engine.facts import Facts
from nvrc.engine.table import SHORT, nothing
from nvrc.machine.system import System

Action = Callable[[System, Facts], Facts]


class Doing(NamedTuple):
    run: Action
    deadline_s: Callable[[Facts], float] = SHORT
    tell: Callable[[Facts], str] = nothing
