# SPDX-License-Identifier: Apache-2.0
"""The longest chain of steps, and what of it was our own time."""

from __future__ import annotations

import pytest

from nvrc.boot import BOOT
from nvrc.report.critical_path import find_chain, own_seconds
from nvrc.report.report import Report, StepRecord
from nvrc.vocabulary.verdict import Outcome

NEEDS = {"mount": (), "scan": ("mount",), "load": ("scan",), "attach": ("load", "log"), "log": ("mount",), "agent": ("attach", "log")}


def step(name: str, start_s: float, end_s: float, waited_s: float | None = 0.0) -> StepRecord:
    return StepRecord(name=name, outcome=Outcome.OK, start_s=start_s, end_s=end_s, waited_s=waited_s)


STEPS = (step("mount", 1.0, 1.2), step("log", 1.2, 1.3, 0.05), step("scan", 1.3, 1.4), step("load", 1.4, 2.4, 0.9),
         step("attach", 2.4, 5.4, 2.8), step("agent", 5.4, 5.5))


def test_a_chain_goes_back_from_the_last_step_by_what_it_waited_for() -> None:
    assert [one.name for one in find_chain(STEPS, NEEDS)] == ["mount", "scan", "load", "attach", "agent"]


def test_own_time_is_what_is_left_without_the_waiting_of_that_chain() -> None:
    report = Report(program="p", started_s=0.9, steps=STEPS)
    assert own_seconds(report, NEEDS) == pytest.approx(4.6 - 0.9 - 2.8), "what log waited for was beside the chain"


@pytest.mark.parametrize("steps", [(), (StepRecord(name="mount"),), (step("mount", 1.0, 1.2, None),)],
                         ids=["no-steps", "not-begun", "nobody-knows"])
def test_a_report_that_does_not_tell(steps: tuple[StepRecord, ...]) -> None:
    assert own_seconds(Report(program="p", started_s=0.9, steps=steps), NEEDS) is None


def test_a_report_that_says_nonsense_still_ends() -> None:
    circle = {"mount": ("scan",), "scan": ("mount",)}
    assert len(find_chain((step("mount", 1.0, 2.0), step("scan", 1.0, 2.0)), circle)) == 2
    assert own_seconds(Report(program="p", started_s=9.0, steps=STEPS), NEEDS) == 0.0


def test_the_boot_table_gives_a_chain_from_first_to_last() -> None:
    steps = tuple(step(row.name, index, index + 1) for index, row in enumerate(BOOT))
    chain = [one.name for one in find_chain(steps, {row.name: row.needs for row in BOOT})]
    assert chain[0] == "filesystems"
    assert chain[-1] == "attest"
