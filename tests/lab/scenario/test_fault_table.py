# SPDX-License-Identifier: Apache-2.0
"""Every step of the boot fails in some scenario, and every daemon is killed in every phase: a new one without is a failure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nvrc.boot import BOOT
from nvrc.services import table
from nvrc_lab.ground.places import checkout
from nvrc_lab.scenario import fault_table, faults
from nvrc_lab.scenario.fault_table import (
    DAEMONS,
    PHASES,
    STEPS,
    daemon_table,
    failed_steps,
    kills,
    render,
    step_table,
)
from nvrc_lab.scenario.scenario import list_scenarios, parse_scenario, read_scenario
from nvrc_lab.scenario.values import Scenario

# Of the boot: what PID 1 starts afterwards has no step that could fail with it.
SERVICES = tuple(value for value in vars(table).values() if isinstance(value, table.Service) and value is not table.METRICS)
BEGIN, END = "<!-- fault table -->\n", "<!-- end of fault table -->"


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [read_scenario(path) for path in list_scenarios(checkout().scenarios)]


def holes(scenarios: Sequence[Scenario]) -> tuple[str, ...]:
    """Rows without a scenario and without an excuse; and excuses of what does fail, or is no step."""
    steps, daemons = step_table(scenarios), daemon_table(scenarios)
    idle = [f"step {name}: no scenario makes it fail" for name, found in steps.items()
            if not found and name not in fault_table.EXCUSED]
    idle += [f"{name}: no scenario kills it then" for name, found in daemons.items() if not found]
    return (*idle, *(f"step {name}: excused for nothing" for name in fault_table.EXCUSED if steps.get(name, ("none",))))


def test_nothing_is_left_whole(scenarios: list[Scenario]) -> None:
    assert holes(scenarios) == ()


def test_all_steps_and_all_daemons_of_the_product_are_rows(scenarios: list[Scenario]) -> None:
    assert list(STEPS) == [step.name for step in BOOT] == list(step_table(scenarios))
    assert sorted(DAEMONS) == sorted(service.name for service in SERVICES)
    assert len(daemon_table(scenarios)) == len(SERVICES) * 3
    assert set(PHASES) == set(faults.PHASES) - {"attaching", "restarted"}


def test_who_kills_says_what_must_come_of_it(scenarios: list[Scenario]) -> None:
    for scenario in scenarios:
        expect = scenario.expect
        if list(kills(scenario)):
            assert expect.report, scenario.name
            assert expect.code or expect.warnings or list(failed_steps(scenario)), scenario.name


def test_a_failure_in_a_scenario_names_its_step(scenarios: list[Scenario]) -> None:
    assert [one.name for one in scenarios if one.expect.verdict.value == "failed" and not one.expect.step] == []


def test_the_page_has_the_table(scenarios: list[Scenario]) -> None:
    text = (checkout().root / "docs/lab.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == render(scenarios), "run ./dev docs"


def test_a_row_without_a_scenario_is_a_hole() -> None:
    found = holes(())
    assert "step cdi: no scenario makes it fail" in found
    assert "nvlsm booting: no scenario kills it then" in found
    assert len(found) == len(STEPS) - len(fault_table.EXCUSED) + len(DAEMONS) * len(PHASES)


@pytest.mark.parametrize(("text", "steps", "killed"), [
    pytest.param("expect: {verdict: failed, code: E_MOUNT, step: filesystems}", ["filesystems"], [], id="failed"),
    pytest.param("expect: {verdict: ready, report: {steps/dcgm/outcome: warn}}", ["dcgm"], [], id="degraded"),
    pytest.param("expect: {verdict: ready, report: {steps/dcgm/outcome: ok}}", [], [], id="went-well"),
    pytest.param("faults: [{name: program-killed, program: nvlsm, value: booting}]\nexpect: {verdict: ready}", [], ["nvlsm booting"],
                 id="killed"),
])
def test_what_a_scenario_breaks_is_read_from_it(text: str, steps: list[str], killed: list[str]) -> None:
    scenario = parse_scenario(f"summary: s\n{text}", "mine", "mine.yaml")
    assert (list(failed_steps(scenario)), list(kills(scenario))) == (steps, killed)
