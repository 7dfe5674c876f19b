# SPDX-License-Identifier: Apache-2.0
"""Scenarios under QEMU, each compared with what it must come to: one of every kind here, all with NVRC_WHOLE_MATRIX=1.

`nvrc-lab matrix` runs all of them as well; it takes some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from nvrc_lab.commands.matrix import choose, weight
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Result, default_workers, open_lab, run_all
from nvrc_lab.scenario.scenario import list_scenarios

pytestmark = pytest.mark.qemu
ONE_OF_A_KIND = (
    "cpu", "gpu-1", "gpu-8", "gpu-8-nvswitch", "gpu-8-nvlink5", "gpu-mig", "servicevm-nvswitch", "extension-gpu",
    "extension-wrong-hash", "topology-2-switches", "attach-fails", "persistenced-lies", "cc-on", "cc-mismatch",
    "nvml-hangs", "policy-denies", "module-lacks-symbol", "mig-made", "container-plain",
)
ALL = tuple(path.stem for path in list_scenarios(checkout().scenarios))
NAMES = ALL if os.environ.get("NVRC_WHOLE_MATRIX") else ONE_OF_A_KIND


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Result]:
    """All machines in one go, as many at a time as the lab runs by default."""
    places = checkout()
    chosen = (one for one in choose(places.scenarios, NAMES) if one.name in NAMES)  # a word chooses all that have it
    scenarios = sorted(chosen, key=weight, reverse=True)
    qemu = find_qemu()
    choice = choose_accel(qemu, places.accel)
    lab = open_lab(places, qemu, lab_image(), scenarios, choice=choice)
    folder: Path = tmp_path_factory.mktemp("consoles")
    return {one.scenario.name: one for one in run_all(lab, scenarios, folder, default_workers())}


def test_no_machine_boots_that_nothing_is_asked_of(results: Mapping[str, Result]) -> None:
    assert sorted(results) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_scenario(results: Mapping[str, Result], name: str) -> None:
    found = results[name]
    tail = found.console.read_text(errors="replace").splitlines()[-25:] if found.console.exists() else []
    assert found.ok, "\n".join([*found.problems, "", "its last lines:", *tail])
