# SPDX-License-Identifier: Apache-2.0
"""Does the real driver look like the lab's? One assumption a test; its name and message are the difference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from gpu.gathered import PROC, Json

pytestmark = pytest.mark.gpu

INFORMATION = ("Model", "IRQ", "GPU UUID", "Video BIOS", "Bus Type", "DMA Size", "DMA Mask", "Bus Location",
               "Device Minor", "GPU Firmware", "GPU Excluded")
PARAMS = ("DeviceFileMode", "DeviceFileUID", "DeviceFileGID", "ModifyDeviceFiles", "CreateImexChannel0")


def proc(facts: Json) -> Mapping[str, str]:
    return cast("Mapping[str, str]", facts["proc"])


def fields(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def information(facts: Json) -> list[dict[str, str]]:
    return [fields(text) for path, text in proc(facts).items() if re.fullmatch(f"{PROC}/gpus/[^/]+/information", path)]


def nodes(facts: Json, key: str = "nodes") -> Mapping[str, Sequence[int]]:
    found = facts[key] if key == "nodes" else cast("Json", facts["due"])["nodes"]
    return cast("Mapping[str, Sequence[int]]", found)


def test_the_version_is_where_we_read_it(facts: Json) -> None:
    assert re.match(r"NVRM version: .*\s\d+\.\d+(\.\d+)?\s", proc(facts)[f"{PROC}/version"])


@pytest.mark.parametrize("name", PARAMS)
def test_a_parameter_of_device_files_is_listed(facts: Json, name: str) -> None:
    assert fields(proc(facts)[f"{PROC}/params"]).get(name, "").isdigit(), name


@pytest.mark.parametrize("name", INFORMATION)
def test_a_gpu_has_the_line(facts: Json, name: str) -> None:
    lacking = [gpu.get("Bus Location", "?") for gpu in information(facts) if name not in gpu]
    assert information(facts) and lacking == []


def test_every_gpu_of_the_bus_is_one_of_the_driver(facts: Json) -> None:
    ours = {str(function["bdf"]) for function in cast("Sequence[Json]", facts["bus"])
            if str(function["class"]).startswith("0x03")}
    assert {gpu["Bus Location"] for gpu in information(facts)} == ours


def test_attached_gpus_have_a_uuid_that_we_take(facts: Json) -> None:
    uuids = [gpu["GPU UUID"] for gpu in information(facts)]
    assert [uuid for uuid in uuids if not re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid)] == []


def test_the_names_in_proc_devices_are_those_we_look_up(facts: Json) -> None:
    names = re.findall(r"^ *\d+ (nvidia\S*)", str(facts["devices"]).partition("Block devices:")[0], re.MULTILINE)
    assert set(names) & {"nvidia", "nvidia-frontend"}
    unknown = set(names) - {"nvidia", "nvidia-frontend", "nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-nvlink",
                            "nvidia-nvswitch", "nvidia-caps", "nvidia-caps-imex-channels"}
    assert unknown == set(), "names that no node is made for"


def test_pid_1_would_make_the_nodes(facts: Json) -> None:
    assert "nodes" in cast("Json", facts["due"]), cast("Json", facts["due"]).get("refused")


def test_nodes_that_others_made_have_the_numbers_that_pid_1_would_give(facts: Json) -> None:
    there, due = nodes(facts), nodes(facts, "due")
    assert {path: list(node[1:3]) for path, node in there.items() if path in due} == {
        path: list(node[1:3]) for path, node in due.items() if path in there}


def test_pid_1_knows_every_node_that_is_there(facts: Json) -> None:
    # Another GPU's node may be seen in a container that has one GPU of several.
    due = nodes(facts, "due")
    assert [path for path in nodes(facts) if path not in due and not re.fullmatch(r"/dev/nvidia\d+", path)] == []


def test_the_modules_say_one_version(facts: Json) -> None:
    modules = cast("Mapping[str, Mapping[str, str]]", facts["modules"])
    if "nvidia" not in modules:
        pytest.skip("/sys/module is another machine's")
    assert {name: module["version"] for name, module in modules.items() if module["version"]} == {
        name: modules["nvidia"]["version"] for name, module in modules.items() if module["version"]}
