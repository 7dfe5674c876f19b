# SPDX-License-Identifier: Apache-2.0
"""One scenario on functions that QEMU attaches over vfio-user, and the same one from inside the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import build_image
from nvrc_lab.qemu.accel import Choice
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.qemu.newer_qemu import find_newer_qemu
from nvrc_lab.qemu.qemu import Qemu
from nvrc_lab.run.pci_route import Route
from nvrc_lab.run.runner import open_lab, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, read_scenario

pytestmark = pytest.mark.qemu

CHOICE = Choice(accel=Accel.TCG, reason="tests")


@pytest.fixture(scope="module")
def qemu() -> Qemu:
    try:
        return find_newer_qemu(checkout())
    except LabError as err:
        pytest.skip(str(err))


@pytest.mark.parametrize("name", ["gpu-2", "gpu-lost"])
def test_a_scenario_is_the_same_on_route_b(name: str, qemu: Qemu, tmp_path: Path) -> None:
    places = checkout()
    scenario = read_scenario(find_scenario(name, places.scenarios))
    lab = open_lab(places, qemu, build_image(), [scenario], choice=CHOICE, route=Route.B)
    result = run_scenario(lab, scenario, tmp_path / "console")
    assert result.problems == ()
    assert result.told is not None
    assert not any("lab_pci" in line for line in result.told.lines)
