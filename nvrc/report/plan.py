# SPDX-License-Identifier: Apache-2.0
"""What a boot would do with a command line, a policy and a bus, without doing any of it.

The same table, the same parser and the same decision as in PID 1; only reading steps are run. A step that would fail
takes with it what needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nvrc.engine.conditions import always
from nvrc.engine.facts import Facts
from nvrc.engine.table import Step
from nvrc.hardware.topology import classify, scan
from nvrc.machine.system import Readable
from nvrc.params.parse import Parsed
from nvrc.report.report import FunctionRecord, ParameterRecord, record_topology
from nvrc.steps import topology
from nvrc.steps.parameters import refuse_early
from nvrc.vocabulary.console import sentence
from nvrc.vocabulary.errors import CODES, NvrcError
from nvrc.vocabulary.trouble import Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    name: str
    runs: bool
    why: str
    needs: tuple[str, ...]
    deadline_s: float | None
    on_failure: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedProblem:
    severity: str
    parameter: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    boots: bool
    mode: str
    failures: tuple[Trouble, ...]
    warnings: tuple[str, ...]
    problems: tuple[PlannedProblem, ...]
    steps: tuple[PlannedStep, ...]
    parameters: tuple[ParameterRecord, ...]
    topology: tuple[FunctionRecord, ...]


def make_plan(table: tuple[Step, ...], parsed: Parsed, bus: Readable, policy_error: NvrcError | None = None) -> Plan:
    failures = [replace(policy_error.trouble, step="parameters")] if policy_error else []
    settings = parsed.settings
    facts = Facts(parameters=parsed, early=settings.agent_early and not refuse_early(settings))
    functions: tuple[FunctionRecord, ...] = ()
    try:
        parsed.raise_on_error()
    except NvrcError as error:
        failures.append(replace(error.trouble, step="parameters"))
    try:
        functions = record_topology(classify(scan(bus)))
        facts = topology.run(bus, facts)
    except NvrcError as error:
        failures.append(replace(error.trouble, step="topology"))
    return Plan(
        boots=not failures,
        mode=facts.mode.value if facts.mode else "",
        failures=tuple(failures),
        warnings=tuple(map(sentence, facts.warnings)),
        problems=tuple(PlannedProblem(severity=p.severity.value, parameter=p.parameter, what=p.what, hint=p.hint)
                       for p in parsed.problems),
        steps=tuple(_planned(table, facts, {failure.step: failure.code for failure in failures})),
        parameters=tuple(ParameterRecord(name=name, value=value, source=source.value)
                         for name, value, source in parsed.described()),
        topology=functions,
    )


def _planned(table: tuple[Step, ...], facts: Facts, failed: dict[str, str]) -> Iterator[PlannedStep]:
    lost = dict(failed)
    for step in table:
        missing = [name for name in step.needs_of(facts) if name in lost]
        if step.name in failed:
            runs, why = True, f"fails: {failed[step.name]}"
        elif missing:
            runs, why = False, f"not reached: needs {missing[0]}"
            lost[step.name] = why
        elif step.when(facts):
            runs, why = True, "always" if step.when is always else "applies here"
        else:
            runs, why = False, "does not apply here"
        # A deadline may depend on facts that only a boot that comes this far has.
        yield PlannedStep(name=step.name, runs=runs, why=why, needs=step.needs_of(facts),
                          on_failure=step.on_failure.value,
                          deadline_s=step.load().deadline_s(facts) if runs else None,
                          codes=tuple(row.code for row in CODES if row.step == step.name))

