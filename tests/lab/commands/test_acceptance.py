# SPDX-License-Identifier: Apache-2.0
"""The acceptance itself, on a described machine: it must agree with the lab's idea, and tell where a driver does not."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.machine import Machine, Node, add_library
from fakes.nvml import MockNvml
from nvrc_lab.commands import acceptance

ROOT = Path(__file__).resolve().parents[3]
VERSION = "580.95.05"
LIBRARIES = f"/usr/lib/{platform.machine()}-linux-gnu"
BDF, UUID = "0000:1a:00.0", "GPU-aaaaaaaa-0000-4000-8000-000000000000"
PROC = "/proc/driver/nvidia"
INFORMATION = f"""Model: \t\t NVIDIA H100
IRQ:   \t\t 40
GPU UUID: \t {UUID}
Video BIOS: \t 96.00.74.00.01
Bus Type: \t PCIe
DMA Size: \t 52 bits
DMA Mask: \t 0xfffffffffffff
Bus Location: \t {BDF}
Device Minor: \t 0
GPU Firmware: \t {VERSION}
GPU Excluded:\t No
"""
PARAMS = "".join(f"{name}: {value}\n" for name, value in (
    ("ModifyDeviceFiles", 1), ("DeviceFileUID", 0), ("DeviceFileGID", 0), ("DeviceFileMode", 438), ("CreateImexChannel0", 0)))
FUNCTION = {"vendor": "0x10de", "device": "0x2330", "class": "0x030200"}


def a_machine(folder: Path, built: Path, changed: Mapping[str, str]) -> Path:
    texts = {f"{PROC}/version": f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build\n",
             f"{PROC}/params": PARAMS, f"{PROC}/gpus/{BDF}/information": INFORMATION,
             "/proc/devices": "Character devices:\n195 nvidia\n195 nvidiactl\n511 nvidia-uvm\n\nBlock devices:\n",
             **{f"/sys/bus/pci/devices/{BDF}/{name}": f"{text}\n" for name, text in FUNCTION.items()}, **changed}
    nodes = {"/dev/nvidia0": Node(major=195, minor=0), "/dev/nvidiactl": Node(major=195, minor=255),
             "/dev/nvidia-uvm": Node(major=511, minor=0), "/dev/nvidia-uvm-tools": Node(major=511, minor=1)}
    machine = Machine(files={path: (0o644, text.encode()) for path, text in texts.items()}, nodes=nodes, driver=VERSION)
    add_library(machine, LIBRARIES, f"libcuda.so.{VERSION}", "libcuda.so.1")
    machine.files["/usr/bin/nvidia-cdi-hook"] = (0o755, b"")
    machine.build(folder, nodes=True)
    mock = MockNvml(built, folder / LIBRARIES.lstrip("/"), f"gpu 0 uuid={UUID} minor=0 bus={BDF}")
    Path(mock.library).rename(f"{mock.library.removesuffix('.1')}.{VERSION}")
    Path(mock.library).symlink_to(f"libnvidia-ml.so.{VERSION}")
    return folder


def accept(root: Path, output: Path) -> tuple[int, str, Mapping[str, object]]:
    done = subprocess.run([sys.executable, "-m", "nvrc_lab.commands.acceptance", "--root", str(root), "--output", str(output)],
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    assert output.exists(), done.stdout + done.stderr
    facts: Mapping[str, object] = json.loads(output.read_text())
    return done.returncode, done.stdout, facts


@pytest.mark.namespace
def test_the_labs_own_idea_of_a_driver_is_accepted(tmp_path: Path, nvml_standin: Path) -> None:
    status, said, facts = accept(a_machine(tmp_path / "root", nvml_standin, {}), tmp_path / "facts.json")
    assert (status, facts["differences"]) == (0, {}), said
    nvml = facts["nvml"]
    assert isinstance(nvml, dict) and nvml["gpus"]["answer"][0]["uuid"] == UUID
    assert facts["counts"] == [0, 1, 0]


@pytest.mark.namespace
@pytest.mark.parametrize(("path", "text", "name"), [
    pytest.param(f"{PROC}/version", "Kernel Module 580\n", "test_the_version_is_where_we_read_it", id="another version line"),
    pytest.param(f"{PROC}/gpus/{BDF}/information", INFORMATION.replace("GPU Excluded", "Excluded"),
                 "test_a_gpu_has_the_line[GPU Excluded]", id="a line of another name"),
    pytest.param("/proc/devices", "Character devices:\n195 nvidia\n195 nvidiactl\n511 nvidia-uvm\n509 nvidia-new\n",
                 "test_the_names_in_proc_devices_are_those_we_look_up", id="a device that we do not know"),
    pytest.param("/proc/devices", "Character devices:\n195 nvidia\n195 nvidiactl\n510 nvidia-uvm\n",
                 "test_nodes_that_others_made_have_the_numbers_that_pid_1_would_give", id="a node of another number"),
])
def test_a_difference_is_told_by_its_name(tmp_path: Path, nvml_standin: Path, path: str, text: str, name: str) -> None:
    status, said, facts = accept(a_machine(tmp_path / "root", nvml_standin, {path: text}), tmp_path / "facts.json")
    differences = facts["differences"]
    assert status == 1 and isinstance(differences, dict) and name in differences, said
    assert f"DIFFERS {name}: " in said


def test_a_machine_without_the_driver_is_no_failure_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert acceptance.main(["--root", str(tmp_path), "--output", str(tmp_path / "facts.json")]) == 2
    assert "no NVIDIA driver on this machine" in capsys.readouterr().err
    assert not (tmp_path / "facts.json").exists()
