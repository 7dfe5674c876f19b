# SPDX-License-Identifier: Apache-2.0
"""Documents that the reference generator itself wrote, when a folder with such recordings is at hand.

NVRC_CDI_ORACLES names it: one folder per machine, with inputs.json (the machine), expected.yaml and
expected-1.19.1.yaml (what two releases wrote). tests/roots has our own machines and always runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest
import yaml

from fakes.elf import shared_object
from fakes.machine import Machine, Node
from fakes.nvml import MockNvml
from guest_cdi import cli
from guest_cdi.generate import generate
from guest_cdi.gpu import Gpu, Mig
from guest_cdi.lean.errors import CdiError
from guest_cdi.render import document, render_yaml

FOLDER = os.environ.get("NVRC_CDI_ORACLES", "")
CASES = sorted(path.parent for path in Path(FOLDER).glob("*/inputs.json")) if FOLDER else []

pytestmark = pytest.mark.skipif(not CASES, reason="NVRC_CDI_ORACLES names no folder with recordings")

each_case = pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
each_release = pytest.mark.parametrize(("release", "expected"), [
    ("1.20", "expected.yaml"), ("1.19.1", "expected-1.19.1.yaml")], ids=["current", "1.19.1"])


def load_machine(case: Path) -> Machine:
    inputs = json.loads((case / "inputs.json").read_text())
    machine = Machine(arguments=tuple(word for word in inputs["argv"][1:] if word.startswith("--")),
                      driver=inputs["nvml"]["driver_version"])
    machine.directories += inputs["base_dirs"]
    machine.links.update({entry["path"]: entry["target"] for entry in inputs["base_symlinks"]})
    for entry in inputs["filesystem"]:
        add_entry(machine, entry)
    machine.gpus += [read_gpu(entry) for entry in inputs["nvml"]["devices"]]
    return machine


def add_entry(machine: Machine, entry: Mapping[str, str]) -> None:
    path = entry["path"]
    mode = int(entry.get("mode", "0644"), 8)
    match entry["type"]:
        case "dir":
            machine.directories.append(path)
        case "symlink":
            machine.links[path] = entry["target"]
        case "file":
            machine.files[path] = (mode, entry["content"].encode())
        case "elf":
            soname = entry["soname"]
            machine.files[path] = (mode, shared_object(*((soname,) if soname else ())))
        case "socket":
            machine.sockets.append(path)
        case "char":
            machine.nodes[path] = Node(major=int(entry["major"]), minor=int(entry["minor"]), mode=mode,
                                       gid=int(entry.get("gid", 0)))


class RecordedMig(TypedDict):
    index: int
    uuid: str
    gpu_instance_id: int
    compute_instance_id: int


class RecordedGpu(TypedDict):
    index: int
    uuid: str
    name: str
    minor: int
    pci_bus_id: str
    mig_mode: int
    mig_devices: NotRequired[list[RecordedMig]]


def read_gpu(entry: RecordedGpu) -> Gpu:
    migs = tuple(Mig(index=mig["index"], uuid=mig["uuid"], gi=mig["gpu_instance_id"], ci=mig["compute_instance_id"])
                 for mig in entry.get("mig_devices", []))
    return Gpu(index=entry["index"], uuid=entry["uuid"], name=entry["name"], minor=entry["minor"],
               bus_id=entry["pci_bus_id"], mig_enabled=entry["mig_mode"] == 1, mig_capable=True, migs=migs)


def arguments_for(machine: Machine, release: str) -> list[str]:
    return [*machine.arguments, "--compat=nvidia-ctk", f"--reference-release={release}"]


@each_release
@each_case
def test_document_equals_the_recording(case: Path, release: str, expected: str, tmp_path: Path) -> None:
    machine = load_machine(case)
    arguments = cli.build_parser().parse_args(arguments_for(machine, release), cli.Arguments())
    host = machine.host(tmp_path)
    if not (case / expected).exists():
        with pytest.raises(CdiError):
            generate(host, machine.nvml(), cli.read_options(arguments))
        return
    spec = generate(host, machine.nvml(), cli.read_options(arguments)).spec
    wanted = yaml.safe_load((case / expected).read_text())
    assert document(spec) == wanted
    assert render_yaml(spec) == (case / expected).read_text()


def describe_nvml(machine: Machine) -> str:
    lines = []
    for gpu in machine.gpus:
        lines.append(f'gpu {gpu.index} name="{gpu.name}" uuid={gpu.uuid} minor={gpu.minor} bus={gpu.bus_id} '
                     f"mig={'on' if gpu.mig_enabled else 'off'}")
        lines += [f"mig gpu={gpu.index} gi={mig.gi} ci={mig.ci} index={mig.index} uuid={mig.uuid} profile=3g.40gb slices=1"
                  for mig in gpu.migs]
    return "\n".join(lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
@each_release
@each_case
def test_command_on_a_real_tree(case: Path, release: str, expected: str, tmp_path: Path,
                                nvml_mock: Callable[[str], MockNvml]) -> None:
    machine = load_machine(case)
    mock = nvml_mock(describe_nvml(machine))
    root = machine.build(tmp_path / "root", nodes=True)
    output = tmp_path / "out" / "nvidia.yaml"
    arguments = [word for word in arguments_for(machine, release) if not word.startswith("--output=")]
    status = cli.main([*arguments, f"--root={root}", f"--nvml-library={mock.library}", f"--output={output}"])
    if not (case / expected).exists():
        assert status == 1
        assert not output.exists()
        return
    assert status == 0
    assert output.read_text() == (case / expected).read_text()
