# SPDX-License-Identifier: Apache-2.0
"""Numbers of the driver's nodes, as a probe in the machine prints them, against /proc/devices."""

from __future__ import annotations

import pytest

from nvrc_lab.scenario.node_numbers import check_numbers, due_nodes, probe_commands

DEVICES = {"nvidia": 195, "nvidiactl": 195, "nvidia-uvm": 511, "nvidia-nvlink": 509, "nvidia-caps": 508}


def console(minors: list[int]) -> list[str]:
    return [*(f"[    1.0] probe: cat /proc/devices: {major:3} {name}" for name, major in DEVICES.items()),
            *(f"probe: stat {row.path} {DEVICES[row.owner]}:{row.minor} mode=666" for row in due_nodes(minors))]


def test_right_numbers_are_no_problem() -> None:
    assert list(check_numbers(console([0, 3]), [0, 3])) == []


@pytest.mark.parametrize(("old", "new", "problem"), [
    ("stat /dev/nvidia3 195:3", "stat /dev/nvidia3 195:1", "node /dev/nvidia3: it is 195:1, and nvidia has 195:3"),
    ("stat /dev/nvidia-uvm 511:0", "stat /dev/nvidia-uvm 510:0",
     "node /dev/nvidia-uvm: it is 510:0, and nvidia-uvm has 511:0"),
    ("stat /dev/nvidiactl 195:255 mode=666", "stat /dev/nvidiactl error ENOENT", "node /dev/nvidiactl: error ENOENT"),
    ("probe: stat /dev/nvidia-nvlink", "nothing", "node /dev/nvidia-nvlink: never looked at"),
    ("508 nvidia-caps", "508 something",
     "node /dev/nvidia-caps/nvidia-cap1: it is 508:1, and nvidia-caps has no number:1"),
])
def test_each_difference_is_told(old: str, new: str, problem: str) -> None:
    lines = [line.replace(old, new) for line in console([0, 3])]
    assert problem in list(check_numbers(lines, [0, 3]))


def test_the_probe_opens_no_gpu() -> None:
    assert {command.split()[0] for command in probe_commands([0])} == {"wait", "cat", "stat"}
