# SPDX-License-Identifier: Apache-2.0
"""One machine with two GPUs and two NICs below switches: what the boot makes of them, held against the guest's sysfs."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from fakes.lab_image import lab_image
from nvrc.commands import topology
from nvrc.report.report import Report, Role
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Result, open_lab, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, read_scenario
from nvrc_lab.watch.places import Function, read_functions

pytestmark = pytest.mark.qemu

GPUS, NICS = ("0001:13:00.0", "0001:17:00.0"), ("0001:14:00.0", "0001:18:00.0")
NCCL = "/var/run/nvidia-topologyd/virtualTopology.xml"
REPORT = re.compile(r"nvrc: report (.*)")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    places, qemu = checkout(), find_qemu()
    scenario = read_scenario(find_scenario("nics-switches", places.scenarios))
    choice = choose_accel(qemu, places.accel)
    lab = open_lab(places, qemu, lab_image(), [scenario], choice=choice)
    console: Path = tmp_path_factory.mktemp("consoles") / "console"
    found = run_scenario(lab, scenario, console)
    assert found.ok, "\n".join([*found.problems, *console.read_text(errors="replace").splitlines()[-25:]])
    return found


@pytest.fixture(scope="module")
def report(result: Result) -> Report:
    assert result.told is not None
    assert result.told.report is not None
    return result.told.report


@pytest.fixture(scope="module")
def sysfs(result: Result) -> Mapping[str, Function]:
    assert result.told is not None
    return read_functions(result.told)


def agent(result: Result, topic: str) -> list[str]:
    assert result.told is not None
    return [line.removeprefix(topic) for line in result.told.agent if line.startswith(topic)]


def text(result: Result, path: str) -> str:
    return "".join(f"{line}\n" for line in agent(result, f"text {path}: "))


def test_the_agent_finds_verbs_and_nothing_that_reaches_the_subnet(result: Result) -> None:
    names = [line.split()[:2] for line in agent(result, "infiniband ") if "=" not in line]
    assert names == [["rdma_cm", "char"], ["uverbs0", "char"], ["uverbs1", "char"]]


def test_the_documents_of_nics_have_the_nodes_with_their_numbers(result: Result) -> None:
    rows = (line.split() for line in agent(result, "infiniband ") if "=" not in line)
    numbers = {f"/dev/infiniband/{name}": numbers for name, _, numbers in rows}
    for kind, names in (("nic", ["0", "1", "all"]), ("ib", ["0", "1", "all", "mlx5_0", "mlx5_1"])):
        spec = yaml.safe_load(text(result, f"/var/run/cdi/nvidia-{kind}.yaml"))
        devices = {device["name"]: device["containerEdits"]["deviceNodes"] for device in spec["devices"]}
        assert (spec["kind"], list(devices)) == (f"nvidia.com/{kind}", names)
        for node in (node for nodes in devices.values() for node in nodes):
            assert f"{node['major']}:{node['minor']}" == numbers[node["path"]]
        assert [[node["path"] for node in devices[number]] for number in ("0", "1")] == [
            [f"/dev/infiniband/uverbs{number}", "/dev/infiniband/rdma_cm"] for number in (0, 1)]


def test_the_report_has_the_nics_with_names_ports_and_gids(report: Report) -> None:
    assert [(one.bdf, one.kind, one.rdma, one.netdevs, one.verbs) for one in report.nics] == [
        (NICS[0], "RoCE PF", "mlx5_0", ("eth0",), "uverbs0"), (NICS[1], "InfiniBand VF", "mlx5_1", (), "uverbs1")]
    assert [function.bdf for function in report.topology if function.role is Role.NIC] == list(NICS)
    roce, infiniband = (one.ports[0] for one in report.nics)
    assert (roce.state, roce.link_layer, infiniband.link_layer) == ("4: ACTIVE", "Ethernet", "InfiniBand")
    assert any("fe80:0000:0000:0000:ba3f:d2ff:feb1:0000" in gid for gid in roce.gids)
    assert len(infiniband.gids) == 1
    assert "fe80:0000:0000:0000:b83f:d203:00b1:0001" in infiniband.gids[0]


def test_the_report_has_the_places_that_the_machine_was_given(report: Report, sysfs: Mapping[str, Function]) -> None:
    """That every number is that of sysfs is seen to in each run (nvrc_lab/watch/places.py); here it is not nothing."""
    assert [place.bdf for place in report.places] == [*GPUS, *NICS]
    for place in report.places:
        one = sysfs[place.bdf]
        assert (one.link, one.numa, len(one.way)) == (("32.0 GT/s PCIe", "16"), "-1", 5)
        assert (place.speed, place.acs, place.ats) == ("32.0 GT/s PCIe", True, place.bdf in NICS)


def test_the_command_prints_them_as_nvidia_smi_does(result: Result, tmp_path: Path) -> None:
    assert result.told is not None
    pieces = (REPORT.search(line) for line in result.told.lines)
    (tmp_path / "boot.json").write_text("".join(found[1] for found in pieces if found), encoding="utf-8")
    out = io.StringIO()
    assert topology.run(argparse.Namespace(file=str(tmp_path / "boot.json"), json=False), out) == 0
    rows = [line.split()[:5] for line in out.getvalue().splitlines()[1:5]]
    assert rows == [["GPU0", "X", "PHB", "PIX", "PHB"], ["GPU1", "PHB", "X", "PHB", "PIX"],
                    ["NIC0", "PIX", "PHB", "X", "PHB"], ["NIC1", "PHB", "PIX", "PHB", "X"]]


def test_nccl_finds_each_gpu_below_the_switch_of_its_nic(result: Result, sysfs: Mapping[str, Function]) -> None:
    root = ElementTree.fromstring(text(result, NCCL))
    ways = dict(walk(root, ()))
    assert [ways[bdf] for bdf in (*GPUS, *NICS)] == [(sysfs[bdf].way[-3],) for bdf in (*GPUS, *NICS)]
    assert {(one.get("link_speed"), one.get("link_width")) for one in root.iter("pci") if one.get("vendor")} == {
        ("32.0 GT/s PCIe", "16")}


def walk(element: ElementTree.Element, above: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Bus ids, each with those above it."""
    own = element.get("busid", "")
    found = [(own, above)] if own else []
    return found + [row for child in element for row in walk(child, (*above, own) if own else above)]
