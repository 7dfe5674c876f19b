# SPDX-License-Identifier: Apache-2.0
"""`guest-cdi generate --mode`: nvidia-ctk's modes with their nodes, kinds and device names, its flags and its variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fakes.elf import shared_object
from fakes.machine import DescribedHost, Node
from guest_cdi import cli
from guest_cdi.environment import VARIABLES, add_variables
from guest_cdi.host import LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.modes import MODES, describe_mode
from guest_cdi.render import render
from guest_cdi.spec import Spec
from guest_cdi.validate import check_text

CHANNELS = "/dev/nvidia-caps-imex-channels"
NODES = {
    **{f"/dev/{name}": Node(major=195, minor=minor) for name, minor in (("nvidia0", 0), ("nvidia1", 1), ("nvidiactl", 255))},
    "/dev/nvidia-uvm": Node(major=240, minor=0), "/dev/nvidia-modeset": Node(major=195, minor=254),
    **{f"/dev/{name}": Node(major=241, minor=minor) for minor, name in enumerate(("nvidia-nvswitch0", "nvidia-nvswitch1"))},
    "/dev/nvidia-nvswitchctl": Node(major=241, minor=255), "/dev/nvidia-nvlink": Node(major=242, minor=0),
    **{f"/dev/nvidia-fs{number}": Node(major=243, minor=number) for number in range(2)},
    "/dev/nvidia-caps/nvidia-cap1": Node(major=244, minor=1, mode=0o400),
    **{f"{CHANNELS}/channel{number}": Node(major=245, minor=number) for number in (0, 3)},
    "/dev/infiniband/uverbs0": Node(major=231, minor=192), "/dev/infiniband/rdma_cm": Node(major=10, minor=60),
    "/dev/infiniband/umad0": Node(major=231, minor=0), "/dev/gdrdrv": Node(major=246, minor=0),
}


@pytest.fixture
def board(tmp_path: Path) -> DescribedHost:
    for path in (*NODES, "/etc/cufile.json", "/usr/bin/nvidia-smi", "/usr/bin/nvidia-cdi-hook"):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o755)
    (tmp_path / "run/udev").mkdir(parents=True)
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    for name in ("libcuda.so", "libnvidia-ml.so"):
        (libraries / f"{name}.580.95.05").write_bytes(shared_object(f"{name}.1"))
    return DescribedHost(LinuxHost(str(tmp_path)), NODES)


def described(host: DescribedHost, mode: str, *flags: str) -> Spec:
    arguments = cli.build_parser().parse_args([f"--mode={mode}", *flags], cli.Arguments())
    spec = describe_mode(host, mode, cli.read_options(arguments))
    assert check_text("m.yaml", render(spec, "yaml")).findings == ()
    return spec


def nodes(spec: Spec, name: str = "all") -> list[str]:
    return [node.path for device in spec.devices if device.name == name for node in device.container_edits.device_nodes]


@pytest.mark.parametrize(("mode", "kind", "expected"), [
    ("gdrcopy", "nvidia.com/gdrcopy", ["/dev/gdrdrv"]),
    ("gds", "nvidia.com/gds", ["/dev/nvidia-fs0", "/dev/nvidia-fs1"]),
    ("mofed", "nvidia.com/mofed", ["/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"]),
    ("nvswitch", "nvidia.com/nvswitch", ["/dev/nvidia-nvswitch0", "/dev/nvidia-nvswitch1", "/dev/nvidia-nvswitchctl"]),
])
def test_a_gated_mode_has_one_device_with_its_nodes(board: DescribedHost, mode: str, kind: str, expected: list[str]) -> None:
    spec = described(board, mode)
    assert (spec.kind, [device.name for device in spec.devices], nodes(spec)) == (kind, ["all"], expected)
    assert spec.container_edits.env == ("NVIDIA_VISIBLE_DEVICES=void",)


def test_storage_brings_its_files_where_there_are_nodes(board: DescribedHost, tmp_path: Path) -> None:
    mounts = described(board, "gds").devices[0].container_edits.mounts
    assert [(one.host_path, one.container_path) for one in mounts] == [("/etc/cufile.json", "/etc/cufile.json"), ("/run/udev", "/run/udev")]
    assert mounts[0].options == ("ro", "nosuid", "nodev", "rbind", "rprivate")
    (tmp_path / "etc/cufile.json").unlink()
    again = described(DescribedHost(LinuxHost(str(tmp_path)), NODES), "gds")
    assert [one.host_path for one in again.devices[0].container_edits.mounts] == ["/run/udev"]


@pytest.mark.parametrize(("flags", "names"), [
    ((), ["0", "3", "all"]), (("--no-all-device",), ["0", "3"]), (("--device-id=3",), ["3", "all"]),
    (("--device-id=channel3,channel0", "--no-all-device"), ["0", "3"]), (("--device-id=0", "--device-id=all"), ["0", "3", "all"]),
])
def test_imex_channels_by_number(board: DescribedHost, flags: Sequence[str], names: list[str]) -> None:
    spec = described(board, "imex", *flags)
    assert (spec.kind, [device.name for device in spec.devices]) == ("nvidia.com/imex-channel", names)
    assert nodes(spec, names[0]) == [f"{CHANNELS}/channel{names[0]}"]


@pytest.mark.parametrize(("word", "what"), [
    ("x", "an IMEX channel is a number"), ("1048576", "below 1048576"), ("-1", "is a number"), ("5", "channel5 is not a character device"),
    ("*", "is a number"), ("²", "is a number"), ("1" * 5000, "--device-id 1{40}: an IMEX channel is a number"),
])
def test_a_channel_that_there_is_not(board: DescribedHost, word: str, what: str) -> None:
    with pytest.raises(CdiError, match=what):
        described(board, "imex", f"--device-id={word}")


def test_management_has_all_but_storage_and_fabric(board: DescribedHost) -> None:
    spec = described(board, "management", "--disable-hook=all")
    assert spec.kind == "management.nvidia.com/gpu"
    assert sorted(nodes(spec)) == ["/dev/nvidia-caps-imex-channels/channel0", "/dev/nvidia-caps-imex-channels/channel3",
                                   "/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia0",
                                   "/dev/nvidia1", "/dev/nvidiactl"]
    mounted = [mount.container_path for mount in spec.container_edits.mounts]
    assert "/usr/bin/nvidia-smi" in mounted
    assert [path for path in mounted if "libnvidia-ml.so" in path]


def test_a_driver_root_is_where_files_are_and_nodes_keep_their_path(board: DescribedHost) -> None:
    spec = described(board, "gds", "--driver-root=/elsewhere", "--dev-root=/")
    assert (nodes(spec)[0], spec.devices[0].container_edits.mounts) == ("/dev/nvidia-fs0", ())


@pytest.mark.parametrize("mode", list(MODES))
def test_a_machine_without_is_an_error_and_no_document(tmp_path: Path, mode: str) -> None:
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    code = "E_CDI_DRIVER_VERSION" if mode == "management" else "E_CDI_NO_DEVICE"
    with pytest.raises(CdiError) as failed:
        described(DescribedHost(LinuxHost(str(tmp_path)), {}), mode)
    assert failed.value.code == code


@pytest.mark.parametrize(("flags", "kind"), [
    (("--compat=nvidia-ctk",), "nvidia.com/gpu"), (("--class=storage", "--vendor=example.com"), "example.com/storage")])
def test_the_kind_of_the_command_and_of_the_caller(board: DescribedHost, flags: Sequence[str], kind: str) -> None:
    assert described(board, "gds", *flags).kind == kind


def test_variables_stand_for_missing_flags() -> None:
    given = {"NVIDIA_CTK_CDI_GENERATE_MODE": "gds", "NVIDIA_CTK_DRIVER_ROOT": "/d", "NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE": "true",
             "NVIDIA_CTK_DEV_ROOT": "", "NVIDIA_CTK_CDI_GENERATE_DEVICE_IDS": "0,1"}
    parsed = cli.build_parser().parse_args(add_variables(["--discovery-mode", "imex", "--devices=7"], given), cli.Arguments())
    assert (parsed.mode, parsed.driver_root, parsed.dev_root, parsed.no_all_device, parsed.device_id) == ("imex", "/d", "", True, ["7"])
    assert add_variables([], {"NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE": "0"}) == []


def test_every_flag_of_the_reference_has_its_variable() -> None:
    options = {flag for action in cli.build_parser()._actions for flag in action.option_strings}
    assert {flag for flags in VARIABLES.values() for flag in flags} <= options


def test_a_variable_that_is_no_truth_value() -> None:
    with pytest.raises(CdiError, match="NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE='perhaps': not a truth value"):
        add_variables([], {"NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE": "perhaps"})
