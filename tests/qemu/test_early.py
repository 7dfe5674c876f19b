# SPDX-License-Identifier: Apache-2.0
"""What goes on beside the attach of slow GPUs: getting ready for them always, and the agent where that is asked for.

The agent on two machines: eight GPUs that come up late, and a GPU that never does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Result, open_lab, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, read_scenario

pytestmark = pytest.mark.qemu
Boot = Callable[[str], Result]
CLOCK = re.compile(r"container: clock start=(\d+)")


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    def start(name: str) -> Result:
        places, qemu = checkout(), find_qemu()
        scenario = read_scenario(find_scenario(name, places.scenarios))
        choice = choose_accel(qemu, places.accel)
        lab = open_lab(places, qemu, lab_image(), [scenario], choice=choice)
        found = run_scenario(lab, scenario, tmp_path / "console")
        assert found.ok, "\n".join([*found.problems, *(tmp_path / "console").read_text(errors="replace").splitlines()[-25:]])
        return found

    return start


def test_what_needs_no_gpu_is_got_ready_beside_the_attach(boot: Boot) -> None:
    """The worker's code and its scan begin when the daemon has spoken, and are over long before the last GPU is up."""
    told = boot("attach-slow").told
    assert told is not None
    assert told.report is not None
    attach = next(step for step in told.report.steps if step.name == "persistenced")
    places = next(step for step in told.report.steps if step.name == "places")
    (scan,) = told.report.beside
    assert scan.name == "library scan"
    for one in (scan, places):
        assert attach.start_s is not None
        assert attach.end_s is not None
        assert one.start_s is not None
        assert one.end_s is not None
        assert attach.start_s < one.start_s < one.end_s < attach.end_s


def test_the_sandbox_waits_for_no_gpu_and_the_container_for_all(boot: Boot) -> None:
    """That its program opened all eight, which the kernel had refused before, is in the scenario."""
    told = boot("early").told
    assert told is not None
    assert told.report is not None
    steps = {step.name: step for step in told.report.steps}
    agent, attach, ended = steps["agent"].end_s, steps["persistenced"], told.report.ended_s
    assert agent is not None
    assert attach.start_s is not None
    assert attach.end_s is not None
    assert agent <= attach.start_s
    assert attach.end_s - attach.start_s > 8 * 0.5, "eight attaches, one after another"
    started = next(int(found[1]) / 1e6 for line in told.lines if (found := CLOCK.search(line)))
    assert ended is not None
    assert attach.end_s < ended <= started


def test_whoever_does_not_wait_is_refused_by_the_kernel(boot: Boot) -> None:
    """What the scenario asks for: the node of a GPU is refused to root in a cgroup, other devices are not."""
    told = boot("early-overdue").told
    assert told is not None
    assert any(line.startswith("gate /dev/nvidia0 Operation not permitted") for line in told.agent)
