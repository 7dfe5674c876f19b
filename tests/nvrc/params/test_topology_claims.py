# SPDX-License-Identifier: Apache-2.0
"""Claims of the command line against the machine, and the step that puts scan, table and claims together."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.system import FakeSystem
from fakes.trouble import told
from nvrc.engine.facts import Facts
from nvrc.pages.topology import render
from nvrc.params.claims import check_claims, fabric_mode, rail_policy
from nvrc.params.parse import parse
from nvrc.params.values import FabricMode, RailPolicy
from nvrc.steps import topology
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.paths import PCI_DEVICES
from nvrc.vocabulary.trouble import remark


@pytest.mark.parametrize(("mode", "fabric", "rail"), [
    (Mode.CPU, None, None),
    (Mode.GPU, None, None),
    (Mode.GPU_NVL4, FabricMode.FULL, RailPolicy.GREEDY),
    (Mode.GPU_NVL5, FabricMode.FULL, RailPolicy.SYMMETRIC),
    (Mode.SERVICE_NVL4, FabricMode.SHARED, RailPolicy.GREEDY),
    (Mode.SERVICE_NVL5, FabricMode.SHARED, RailPolicy.SYMMETRIC),
], ids=lambda value: value.value if isinstance(value, Mode) else None)
def test_fabric_settings_of_each_mode(mode: Mode, fabric: FabricMode | None, rail: RailPolicy | None) -> None:
    assert (fabric_mode(mode), rail_policy(mode)) == (fabric, rail)


@pytest.mark.parametrize(("line", "modes"), [
    pytest.param("", set(Mode), id="no-claim"),
    pytest.param("nvrc.mode=cpu", {Mode.CPU}, id="cpu"),
    pytest.param("nvrc.mode=gpu", {Mode.GPU, Mode.GPU_NVL4, Mode.GPU_NVL5}, id="gpu-leaves-the-fabric-open"),
    pytest.param("nvrc.mode=gpu-nvl4", {Mode.GPU_NVL4}, id="gpu-nvl4"),
    pytest.param("nvrc.mode=nvswitch-nvl4", {Mode.SERVICE_NVL4}, id="old-service-nvl4"),
    pytest.param("nvrc.mode=nvswitch-nvl5", {Mode.SERVICE_NVL5}, id="old-service-nvl5"),
    pytest.param("nvrc.fabricmanager=off", {Mode.CPU, Mode.GPU}, id="no-fabric-manager"),
    pytest.param("nvrc.fabricmanager=on", set(Mode) - {Mode.CPU, Mode.GPU}, id="fabric-manager"),
    pytest.param("nvrc.fm.mode=0", {Mode.GPU_NVL4, Mode.GPU_NVL5}, id="full"),
    pytest.param("nvrc.fm.mode=1", {Mode.SERVICE_NVL4, Mode.SERVICE_NVL5}, id="shared"),
    pytest.param("nvrc.fm.rail.policy=greedy", {Mode.GPU_NVL4, Mode.SERVICE_NVL4}, id="greedy"),
    pytest.param("nvrc.fm.rail.policy=symmetric", {Mode.GPU_NVL5, Mode.SERVICE_NVL5}, id="symmetric"),
    pytest.param("nvrc.mode=gpu nvrc.fm.mode=0 nvrc.fm.rail.policy=greedy nvrc.fabricmanager=on", {Mode.GPU_NVL4},
                 id="all-four"),
])
def test_where_each_claim_holds(line: str, modes: set[Mode]) -> None:
    settings = parse(line.encode()).settings
    strict = parse(f"{line} nvrc.strict=on".encode()).settings
    assert {mode for mode in Mode if not check_claims(settings, mode)} == modes
    for mode in Mode:
        if mode in modes:
            assert check_claims(strict, mode) == ()
        else:
            with pytest.raises(NvrcError) as caught:
                check_claims(strict, mode)
            assert caught.value.code == "E_MODE_MISMATCH"
            assert caught.value.what == "; ".join(check_claims(settings, mode))


def test_wrong_claims_are_all_named() -> None:
    settings = parse(b"nvrc.mode=cpu nvrc.fabricmanager=off nvrc.fm.mode=1 nvrc.fm.rail.policy=symmetric").settings
    assert check_claims(settings, Mode.GPU_NVL4) == (
        "nvrc.mode=cpu does not match this machine, which is gpu-nvl4: gpu-nvl4 would be right",
        "nvrc.fabricmanager=off does not match this machine, which is gpu-nvl4: on would be right",
        "nvrc.fm.mode=1 does not match this machine, which is gpu-nvl4: 0 would be right",
        "nvrc.fm.rail.policy=symmetric does not match this machine, which is gpu-nvl4: greedy would be right")
    assert check_claims(parse(b"nvrc.fm.mode=0").settings, Mode.GPU) == (
        "nvrc.fm.mode=0 does not match this machine, which is gpu: there is no fabric",)


def one_gpu(root: Path) -> FakeSystem:
    system = FakeSystem(str(root))
    for name, value in (("vendor", "0x10de"), ("device", "0x2330"), ("class", "0x030200")):
        system.put(f"{PCI_DEVICES}/0000:41:00.0/{name}", value + "\n")
    return system


def test_step_adds_topology_mode_and_warnings(tmp_path: Path) -> None:
    given = Facts(parameters=parse(b"nvrc.mode=cpu"), warnings=(remark("earlier"),))
    found = topology.run(one_gpu(tmp_path), given)
    assert found.mode is Mode.GPU
    assert found.topology is not None
    assert [gpu.bdf for gpu in found.topology.gpus] == ["0000:41:00.0"]
    assert told(found.warnings) == (
        "earlier", "nvrc.mode=cpu does not match this machine, which is gpu: gpu would be right")
    assert topology.tell(found) == "gpu: 1 GPU"


def test_step_without_parameters_or_devices(tmp_path: Path) -> None:
    found = topology.run(FakeSystem(str(tmp_path)), Facts())
    assert (found.mode, found.warnings) == (Mode.CPU, ())
    assert topology.tell(found) == "cpu: no NVIDIA device"
    assert topology.tell(Facts()) == ""


@pytest.mark.parametrize(("line", "is_met"), [
    ("nvrc.gpus=8", False), ("nvrc.gpus=min:1", False), ("nvrc.gpus=0", True), ("nvrc.gpus=min:0", True), ("nvrc.gpus=all", True), ("", True)])
def test_a_machine_without_a_gpu_is_not_one_with_those_that_are_required(tmp_path: Path, line: str, is_met: bool) -> None:
    """No step that is about GPUs would run, and the boot would end in READY."""
    given = Facts(parameters=parse(line.encode()))
    if is_met:
        assert topology.run(FakeSystem(str(tmp_path)), given).mode is Mode.CPU
        return
    with pytest.raises(NvrcError) as caught:
        topology.run(FakeSystem(str(tmp_path)), given)
    assert (caught.value.code, caught.value.what.partition(";")[0]) == ("E_GPU_COUNT", "no GPU is on the bus")


def test_step_touches_nothing(tmp_path: Path) -> None:
    system = one_gpu(tmp_path)
    topology.run(system, Facts())
    assert system.effects == []


def test_step_refuses_a_machine_that_breaks_a_strict_claim(tmp_path: Path) -> None:
    with pytest.raises(NvrcError) as caught:
        topology.run(one_gpu(tmp_path), Facts(parameters=parse(b"nvrc.strict=on nvrc.fabricmanager=on")))
    assert caught.value.code == "E_MODE_MISMATCH"


def test_the_page_is_the_tables() -> None:
    page = Path(__file__).parents[3] / "docs" / "topologies.md"
    assert page.read_text() == render(), "run: python -m nvrc.pages.topology > docs/topologies.md"
