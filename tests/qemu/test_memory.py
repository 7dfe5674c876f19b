# SPDX-License-Identifier: Apache-2.0
"""What PID 1 holds of memory for the life of the VM, once it has handed over: that part which is no file's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles, build_image
from nvrc_lab.kit.unpacked_boot import lighten
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import open_lab, run_scenario
from nvrc_lab.scenario.faults import WAIT_MS
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.watch.census import read_censuses

pytestmark = pytest.mark.qemu

MACHINE = """
summary: A machine that is looked at once its agent has run for a second.
machine: {machine}
agent: {{does: [hold]}}
expect: {{verdict: ready, gpus: {gpus}}}
"""
HAND = (f"heard {WAIT_MS} nvrc: READY", "sleep 4000", "census", "cat /proc/1/smaps", "kill 1 15")
# KiB; 3356 and 3876 were seen, of the program that can be moved 6656.
MOST, MOST_MOVABLE = 4_096, 7_168
CONFIDENTIAL = """
extends = "lab"
summary = "The lab's image as one that declares itself confidential."
agent_policy = "deny"
"""


@pytest.mark.parametrize("gpus", [0, 8])
def test_memory_after_the_hand_over(tmp_path: Path, gpus: int) -> None:
    assert memory_after_the_hand_over(lab_image(), tmp_path, gpus) <= MOST


def test_memory_of_a_program_that_can_be_moved(tmp_path: Path) -> None:
    declarations, places = tmp_path / "declarations", checkout()
    for folder in ("images", "locks"):
        (declarations / folder).mkdir(parents=True)
    (declarations / "images/movable.toml").write_text(CONFIDENTIAL, encoding="utf-8")
    shutil.copyfile(places.root / "rootfs/locks/image-lab.toml", declarations / "locks/image-movable.toml")
    options = ["--declarations", str(declarations), "--cache", str(places.cache), "--out", str(tmp_path / "out")]
    files = build_image("movable", options=options)
    assert memory_after_the_hand_over(lighten(files, (), Accel.TCG, places), tmp_path, 0) <= MOST_MOVABLE


def memory_after_the_hand_over(files: BootFiles, folder: Path, gpus: int) -> int:
    machine = f"{{gpus: [{{product: L40S, count: {gpus}}}], memory_mib: 768}}" if gpus else "{}"
    scenario = parse_scenario(MACHINE.format(machine=machine, gpus=gpus), "memory", "this test")
    places, qemu = checkout(), find_qemu()
    choice = choose_accel(qemu, places.accel)
    lab = open_lab(places, qemu, files, (scenario,), choice=choice)
    result = run_scenario(replace(lab, events=HAND), scenario, folder / "console")
    assert result.ok, result.problems
    assert result.told is not None
    assert pages_stay_small(result.told.lines)
    [census] = read_censuses(result.told.lines)
    return census.anon


def pages_stay_small(lines: Sequence[str]) -> bool:
    """Of the memory for objects. Where the kernel may gather pages to large ones, one machine in five grew by 680 KiB a
    while later: those whose mapping happened to hold two MiB that began at a multiple of it.
    """
    told = "\n".join(after for line in lines if (after := line.partition("/proc/1/smaps: ")[2]))
    nameless = re.findall(r"^\S+ rw-p 0+ 00:00 0 *\n(?:.*\n)*?Rss: +(\d+) kB\n(?:.*\n)*?VmFlags: (.*)", told, re.MULTILINE)
    return "nh" in max(nameless, key=lambda one: int(one[0]))[1].split()
