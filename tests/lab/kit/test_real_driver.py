# SPDX-License-Identifier: Apache-2.0
"""The tier with NVIDIA's own driver: its scenarios, and what they add to a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvrc_lab.commands.matrix import REAL_FOLDER, choose
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.real_driver import image_for
from nvrc_lab.run.compose import make_line, needed_parts, scenario_texts
from nvrc_lab.scenario.faults import collect_effects
from nvrc_lab.scenario.hardware import place_gpus
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.values import REAL

PLACES = checkout()
TWO = """
summary: two
driver: real
machine: {gpus: [{product: H100, count: 2}]}
expect: {verdict: failed, code: E_GPU_ATTACH, step: persistenced, within_s: 10}
"""


def test_only_the_own_folder_wants_the_real_driver() -> None:
    real = choose(PLACES.scenarios / REAL_FOLDER, ())
    assert len(real) >= 5 and {one.driver for one in real} == {REAL}
    assert not [one.name for one in choose(PLACES.scenarios, ()) if one.driver == REAL]


def test_the_machine_has_registers_and_no_stand_ins() -> None:
    scenario = parse_scenario(TWO, "two", "two.yaml")
    texts = scenario_texts(scenario, collect_effects(scenario), place_gpus(scenario.machine))
    assert needed_parts(scenario) == ("base", "pci")
    assert texts["/lab/modules"].startswith("/lab/lab_pci.ko mmio=0x30000000 fn=0000:40:00.0/10de:2330/030200")
    assert "stat /dev/nvidia1\n" in texts["/lab/events"]
    assert make_line(scenario).endswith("memmap=32M$0x30000000")


def test_a_machine_without_gpu_reserves_nothing() -> None:
    scenario = parse_scenario("summary: none\ndriver: real\nexpect: {verdict: ready}\n", "none", "none.yaml")
    assert needed_parts(scenario) == ("base",)
    assert "memmap" not in make_line(scenario)


def test_one_command_boots_one_image() -> None:
    real = parse_scenario(TWO, "two", "two.yaml")
    with pytest.raises(LabError, match="two needs the image nvidia, other the lab's: run them one by one"):
        image_for([real, replace(real, driver="", name="other")], PLACES)


def test_a_time_without_a_step_is_a_mistake_of_the_file() -> None:
    with pytest.raises(LabError, match=r"expect.within_s: requires a step"):
        parse_scenario(TWO.replace("step: persistenced, ", ""), "two", "two.yaml")
