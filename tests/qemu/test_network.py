# SPDX-License-Identifier: Apache-2.0
"""A machine with a network of the host's and an empty disk, which tests with programs of others need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import MAC
from nvrc_lab.run.runner import open_lab, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, read_scenario

pytestmark = pytest.mark.qemu
LOOKS = ("wait /sys/class/net/eth0/address 60000", "cat /sys/class/net/eth0/address", "cat /sys/block/vda/size", "cat /sys/block/vda/ro")


def test_a_network_and_a_disk(tmp_path: Path) -> None:
    scenario = read_scenario(find_scenario("network", checkout().scenarios))
    lab = replace(open_lab(checkout(), find_qemu(), lab_image(), [scenario]), events=LOOKS)
    went = run_scenario(lab, scenario, tmp_path / "console")
    assert went.ok, went.problems
    assert went.told is not None
    found = [line.rpartition(": ")[2] for line in went.told.lines if "probe: cat /sys/" in line]
    assert [line for line in found if line] == [MAC, str(64 << 11), "0"]
