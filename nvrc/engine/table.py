# SPDX-License-Identifier: Apache-2.0
"""What a row of the boot table is made of. Values that compare equal; no step is known here by name."""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Enum, dataclass
from nvrc.engine.conditions import always, never
from nvrc.engine.facts import Facts
from nvrc.machine.system import System

Action = Callable[[System, Facts], Facts]
Condition = Callable[[Facts], bool]
Deadline = Callable[[Facts], float]
Telling = Callable[[Facts], str]


class OnFailure(Enum):
    POWER_OFF = "power off"
    DEGRADE = "degrade"


POWER_OFF, DEGRADE = OnFailure.POWER_OFF, OnFailure.DEGRADE


def nothing(_facts: Facts) -> str:
    return ""


def seconds(limit_s: float) -> Deadline:
    return lambda _facts: limit_s


@dataclass(frozen=True, slots=True)
class Step:
    """One row. `blocks`: the action waits and runs on a worker thread. `tells`: what the console adds to its line."""

    name: str
    run: Action
    deadline: Deadline
    needs: tuple[str, ...] = ()
    when: Condition = always
    on_failure: OnFailure = POWER_OFF
    blocks: Condition = never
    tells: Telling = nothing


Table = tuple[Step, ...]


def order(table: Table) -> tuple[str, ...]:
    """The names in an order that respects `needs`; ValueError names what is missing, twice there, or cyclic."""
    names = [step.name for step in table]
    if len(set(names)) != len(names):
        raise ValueError(f"duplicate steps in {names}")
    done: list[str] = []
    waiting = list(table)
    while waiting:
        ready = [step for step in waiting if set(step.needs) <= set(done)]
        if not ready:
            raise ValueError("never ready: " + ", ".join(f"{s.name} needs {s.needs}" for s in waiting))
        done.append(ready[0].name)
        waiting.remove(ready[0])
    return tuple(done)
