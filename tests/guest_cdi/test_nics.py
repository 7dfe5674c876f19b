# SPDX-License-Identifier: Apache-2.0
"""CDI documents of network functions: which number a function has, what it gives, and what no document ever names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.machine import DescribedHost, Node
from guest_cdi import cli
from guest_cdi.discover.nics import (
    NOTHING,
    NetworkFunction,
    describe_nics,
    find_communication,
    find_functions,
    guest_path,
    make_node,
)
from guest_cdi.host import LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.render import render
from guest_cdi.spec import Spec
from guest_cdi.validate import check_text

CM = make_node("/dev/infiniband/rdma_cm", 231, 90)


def add(root: Path, way: str, ids: tuple[str, str] = ("0x15b3", "0x020000"), number: int | None = None, vpd: bytes | None = None) -> str:
    """A function at its place in the tree of devices; with a number, an RDMA device and its verbs."""
    device = root / "sys/devices" / way
    device.mkdir(parents=True)
    for name, value in zip(("vendor", "class"), ids, strict=True):
        (device / name).write_text(f"{value}\n")
    if vpd is not None:
        (device / "vpd").write_bytes(vpd)
    if number is not None:
        (device / f"infiniband/mlx5_{number}").mkdir(parents=True)
        (device / f"infiniband_verbs/uverbs{number}").mkdir(parents=True)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    os.symlink(os.path.relpath(device, bus), bus / device.name)
    return device.name


@pytest.fixture
def board(tmp_path: Path) -> DescribedHost:
    """Bus numbers against the order of the slots; a switch's port, a GPU and a silent function between."""
    add(tmp_path, "pci0000:00/0000:00:03.0/0000:01:00.0", number=0)
    add(tmp_path, "pci0000:00/0000:00:02.0/0000:05:00.0", ("0x15b3", "0x020700"), 1)
    add(tmp_path, "pci0000:00/0000:00:02.1/0000:04:00.0", ("0x15b3", "0x020700"), 2, b"\x82..SW_MNG")
    add(tmp_path, "pci0000:00/0000:00:04.0/0000:02:00.0", ("0x10de", "0x030200"))
    add(tmp_path, "pci0000:00/0000:00:05.0/0000:03:00.0", number=3, vpd=b"")
    add(tmp_path, "pci0000:00/0000:00:06.0/0000:06:00.0", ("0x15b3", "0x080100"))
    nodes = {f"/dev/infiniband/uverbs{number}": Node(major=231, minor=192 + number) for number in range(4)}
    nodes |= {"/dev/infiniband/rdma_cm": Node(major=231, minor=90)}
    nodes |= {f"/dev/infiniband/{name}{number}": Node(major=231, minor=number) for name in ("umad", "issm") for number in range(4)}
    (tmp_path / "dev/infiniband").mkdir(parents=True)
    for path in nodes:
        (tmp_path / path.lstrip("/")).touch()
    return DescribedHost(LinuxHost(str(tmp_path)), nodes)


def named(spec: Spec) -> dict[str, list[str]]:
    return {device.name: [node.path.rpartition("/")[2] for node in device.container_edits.device_nodes] for device in spec.devices}


def test_numbers_follow_the_guest_pci_path_and_leave_nobody_out(board: DescribedHost) -> None:
    nics, rdma = describe_nics(board, find_functions(board), find_communication(board))
    assert (nics.kind, rdma.kind) == ("nvidia.com/nic", "nvidia.com/ib")
    assert named(nics) == {"0": [], "1": ["uverbs1", "rdma_cm"], "2": ["uverbs0", "rdma_cm"], "3": [],
                           "all": ["uverbs1", "rdma_cm", "uverbs0"]}
    assert named(rdma) == {"0": ["uverbs1", "rdma_cm"], "1": ["uverbs0", "rdma_cm"], "mlx5_1": ["uverbs1", "rdma_cm"],
                           "mlx5_0": ["uverbs0", "rdma_cm"], "all": ["uverbs1", "rdma_cm", "uverbs0"]}


def test_no_document_names_a_way_into_the_subnet(board: DescribedHost) -> None:
    text = b"".join(render(spec, "yaml") for spec in describe_nics(board, find_functions(board), find_communication(board)))
    assert b"umad" not in text and b"issm" not in text and b"uverbs2" not in text and b"uverbs3" not in text


@pytest.mark.parametrize("name", ["1", "all", "a b", "mlx5_1"])
def test_a_name_that_somebody_gave_takes_no_other_ones_place(name: str) -> None:
    functions = [NetworkFunction(f"0000:0{number}:00.0", rdma, make_node(f"/dev/infiniband/uverbs{number}", 231, number))
                 for number, rdma in enumerate((name, "mlx5_7"))]
    _, found = describe_nics(Ways(), functions, None)
    assert [device.name for device in found.devices] == ["0", "1", "all", *(["mlx5_1"] if name == "mlx5_1" else []), "mlx5_7"]
    assert [node.path for node in found.devices[1].container_edits.device_nodes] == ["/dev/infiniband/uverbs1"]
    assert check_text("ib.yaml", render(found, "yaml")).findings == ()


class Ways(LinuxHost):
    def resolve(self, path: str) -> str:
        return path


def test_both_documents_are_valid(board: DescribedHost) -> None:
    for spec in describe_nics(board, find_functions(board), find_communication(board)):
        assert check_text("nvidia-nic.yaml", render(spec, "yaml")).findings == ()


@pytest.mark.parametrize(("bdf", "path"), [("0000:01:00.0", "03/00"), ("0000:04:00.0", "02.1/00"), ("0000:05:00.0", "02/00")])
def test_guest_paths_are_katas(board: DescribedHost, bdf: str, path: str) -> None:
    assert guest_path(board, bdf) == path


def test_without_rdma_there_is_a_number_and_nothing_to_give(tmp_path: Path) -> None:
    add(tmp_path, "pci0000:00/0000:00:03.0")
    (nics,) = describe_nics(LinuxHost(str(tmp_path)), [NetworkFunction("0000:00:03.0")], CM)
    assert [(device.name, device.container_edits) for device in nics.devices] == [("0", NOTHING), ("all", NOTHING)]


def test_a_machine_without_nics_has_no_document(tmp_path: Path) -> None:
    add(tmp_path, "pci0000:00/0000:00:03.0", ("0x8086", "0x020000"))
    host = LinuxHost(str(tmp_path))
    assert describe_nics(host, find_functions(host), None) == ()


def test_a_bus_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CdiError, match="/sys/bus/pci/devices: No such file") as caught:
        find_functions(LinuxHost(str(tmp_path)))
    assert caught.value.code == "E_CDI_READ"


def test_a_function_that_left_the_bus_is_an_error(tmp_path: Path) -> None:
    add(tmp_path, "pci0000:00/0000:00:03.0")
    with pytest.raises(CdiError, match=r"0000:09:00\.0: No such file"):
        describe_nics(LinuxHost(str(tmp_path)), [NetworkFunction("0000:09:00.0")], None)


@pytest.mark.usefixtures("board")
def test_the_command_writes_the_document(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["--mode", "nic", "--root", str(tmp_path)]) == 0
    written = capsysbinary.readouterr().out
    assert check_text("nvidia-nic.yaml", written).findings == ()
    assert b"kind: nvidia.com/nic\n" in written


def test_a_machine_without_any_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path, "pci0000:00/0000:00:03.0", ("0x8086", "0x020000"))
    assert cli.main(["--mode", "ib", "--root", str(tmp_path)]) == 1
    assert "this machine has no device for --mode ib (E_CDI_NO_DEVICE)" in capsys.readouterr().err
