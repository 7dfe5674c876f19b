# SPDX-License-Identifier: Apache-2.0
"""What a row of the boot table is made of. Values that compare equal; no step is known here by name.

What a row does is in the module of nvrc.steps that its name says, loaded when its turn comes: a boot without GPUs
never reads the code that is for them.
"""

from __future__ import annotations

import sys

from guest_cdi.lean.light import TYPE_CHECKING, Callable, Enum, dataclass
from nvrc.engine.conditions import always, never, starts_early
from nvrc.engine.facts import Facts
from nvrc.machine.system import System

if TYPE_CHECKING:
    from typing import Protocol

    class StepModule(Protocol):
        """What a module of nvrc.steps offers. `tell`: what the console adds to the step's line."""

        def run(self, system: System, facts: Facts, /) -> Facts: ...
        def deadline_s(self, facts: Facts, /) -> float: ...
        def tell(self, facts: Facts, /) -> str: ...

Condition = Callable[[Facts], bool]
Deadline = Callable[[Facts], float]


class OnFailure(Enum):
    POWER_OFF = "power off"
    DEGRADE = "degrade"


POWER_OFF, DEGRADE = OnFailure.POWER_OFF, OnFailure.DEGRADE


def nothing(_facts: Facts) -> str:
    return ""


def seconds(limit_s: float) -> Deadline:
    return lambda _facts: limit_s


# Of steps that never wait for anything outside the kernel, and of those that do a little more of it.
SHORT, LONG = seconds(10), seconds(30)
# Of steps that wait for nothing but the processor: on a host with more work than processors ten seconds were too few,
# and no parameter can raise the limit of the step that reads them.
PATIENT = seconds(120)


@dataclass(frozen=True, slots=True)
class Step:
    """One row. `blocks`: the action waits and runs on a worker thread. `does`: instead of the module of its name.
    `leads`: other rows do not begin beside it before it waits, as what it waits for is what takes longest.
    `early`: what it needs instead of `needs` where the agent does not wait for the GPUs.
    """

    name: str
    needs: tuple[str, ...] = ()
    early: tuple[str, ...] | None = None
    when: Condition = always
    on_failure: OnFailure = POWER_OFF
    blocks: Condition = never
    leads: bool = False
    does: StepModule | None = None

    @property
    def module(self) -> str:
        return f"nvrc.steps.{self.name.replace('-', '_')}"

    def needs_of(self, facts: Facts) -> tuple[str, ...]:
        return self.needs if self.early is None or not starts_early(facts) else self.early

    def load(self) -> StepModule:
        """What the row does; the first time reads its code."""
        if self.does is not None:
            return self.does
        __import__(self.module)
        return sys.modules[self.module]  # a test holds every module to it


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
