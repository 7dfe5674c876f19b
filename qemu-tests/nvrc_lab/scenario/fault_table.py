# SPDX-License-Identifier: Apache-2.0
"""What is broken where: which scenarios make each step of the boot fail, and kill each daemon in each phase. Pure.

Read from the scenarios themselves, so a row cannot claim what no machine does; a step or a daemon that nothing breaks
is a hole, and a test fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from nvrc.boot import BOOT
from nvrc.vocabulary.errors import find_code
from nvrc_lab.scenario.faults import PROGRAMS
from nvrc_lab.scenario.values import Scenario, Verdict

STEPS = tuple(step.name for step in BOOT)
DAEMONS = tuple(PROGRAMS)
# As in faults.PHASES, less the one that only a daemon at work on a GPU has.
PHASES = ("starting", "booting", "running")
# Steps that no fault can make fail, each with the reason.
EXCUSED: Mapping[str, str] = {}

Table = Mapping[str, tuple[str, ...]]


def failed_steps(scenario: Scenario) -> Iterator[str]:
    """The step that ends the boot, and those that are expected to degrade it, or to warn with a code of their own."""
    if scenario.expect.verdict is Verdict.FAILED and scenario.expect.step:
        yield scenario.expect.step
    for path, outcome in scenario.expect.report.items():
        head, _, rest = path.partition("/")
        name, _, field = rest.partition("/")
        if (head, field, outcome) == ("steps", "outcome", "warn"):
            yield name
    codes = (find_code(text.split()[0]) for text in scenario.expect.warnings if text.startswith("E_"))
    yield from (row.step for row in codes if row is not None and row.step in STEPS)


def kills(scenario: Scenario) -> Iterator[str]:
    """`DAEMON PHASE` for each daemon that is killed."""
    yield from (f"{fault.program} {fault.value}" for fault in scenario.faults if fault.name == "program-killed")


def step_table(scenarios: Sequence[Scenario]) -> Table:
    return _table(STEPS, scenarios, failed_steps)


def daemon_table(scenarios: Sequence[Scenario]) -> Table:
    return _table([f"{daemon} {phase}" for daemon in DAEMONS for phase in PHASES], scenarios, kills)


def _table(rows: Sequence[str], scenarios: Sequence[Scenario], read: Callable[[Scenario], Iterator[str]]) -> Table:
    hits = [(scenario.name, frozenset(read(scenario))) for scenario in scenarios]
    return {row: tuple(sorted(name for name, found in hits if row in found)) for row in rows}


def render(scenarios: Sequence[Scenario]) -> str:
    """Both tables as they stand in docs/lab.md."""
    lines = ["| step | scenarios that make it fail |", "| --- | --- |"]
    lines += [f"| `{name}` | {_cell(found) or EXCUSED[name]} |" for name, found in step_table(scenarios).items()]
    lines += ["", f"| daemon killed | {' | '.join(PHASES)} |", "| --- |" + " --- |" * len(PHASES)]
    table = daemon_table(scenarios)
    lines += [f"| `{daemon}` | " + " | ".join(_cell(table[f'{daemon} {phase}']) for phase in PHASES) + " |"
              for daemon in DAEMONS]
    return "\n".join(lines) + "\n"


def _cell(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
