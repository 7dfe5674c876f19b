# SPDX-License-Identifier: Apache-2.0
"""Configuration space that a vfio-user server shows: what lab_pci.ko shows for the same description."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvrc_lab.devices.virtual_function import (
    DEVCTL,
    MAILBOX,
    RESETS,
    STATE,
    VPD,
    VirtualFunction,
    make_vpd,
    parse_function,
    parse_functions,
)
from nvrc_lab.ground.errors import LabError
from nvrc_lab.run.pci_route import make_devices, move_out

HEADER = Path(__file__).resolve().parents[3] / "qemu-tests/kernel/lab_mailbox.h"
GPU = ("0000:40:00.0/10de:2330/030200/attach_ms=3100/cc=1/minor=5/uuid=00112233445566778899aabbccddeeff"
       "/model=NVIDIA%20H100/mig=1.0+2.1/faults=attach+sticky")
NIC = "0000:60:01.0/15b3:1021/020700/vpd=SW_MNG/guid=b83fd20300a1c001"


def word(function: VirtualFunction, at: int) -> int:
    return int.from_bytes(function.read(at, 4), "little")


def offsets() -> dict[str, int]:
    return {found[1]: int(found[2], 0) for found in
            re.finditer(r"#define (LAB_\w+)\s+(0x[0-9a-f]+)\b", HEADER.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("name", "value"), [
    ("LAB_ATTACH_MS", 3100), ("LAB_CC", 1), ("LAB_MINOR", 5), ("LAB_FAULTS", 0x9), ("LAB_STATE", 0),
])
def test_the_mailbox_is_where_the_driver_looks(name: str, value: int) -> None:
    assert word(VirtualFunction(parse_function(GPU)), MAILBOX + offsets()[name]) == value


def test_texts_and_bytes_of_the_mailbox() -> None:
    function, at = VirtualFunction(parse_function(GPU)), offsets()
    assert function.read(MAILBOX + at["LAB_UUID"], 16).hex() == "00112233445566778899aabbccddeeff"
    assert function.read(MAILBOX + at["LAB_MODEL"], 13) == b"NVIDIA H100\0\0"
    assert function.read(MAILBOX + at["LAB_MIG"], 4) == bytes([0, 1, 2, 0])
    vendor = word(function, MAILBOX + 4)
    assert (vendor & 0xFFFF, vendor >> 20) == (at["LAB_VSEC_ID"], at["LAB_VSEC_LENGTH"])


def capabilities(function: VirtualFunction) -> dict[int, int]:
    found, at = {}, function.read(0x34, 1)[0]
    while at:
        found[function.read(at, 1)[0]] = at
        at = function.read(at + 1, 1)[0]
    return found


@pytest.mark.parametrize(("text", "due"), [(GPU, {1, 5, 0x10}), (NIC, {1, 3, 5, 0x10})])
def test_capabilities_are_chained(text: str, due: set[int]) -> None:
    assert set(capabilities(VirtualFunction(parse_function(text)))) == due


@pytest.mark.parametrize(("bar", "size"), [(0, 16 << 20), (2, 256 << 20), (4, 32 << 20)])
def test_bars_tell_their_size(bar: int, size: int) -> None:
    function, at = VirtualFunction(parse_function(GPU)), 0x10 + 4 * bar
    function.write(at, b"\xff" * 8)
    assert -(int.from_bytes(function.read(at, 8), "little") & ~0xF) & (1 << 64) - 1 == size


def read_vpd(function: VirtualFunction, count: int) -> bytes:
    data = b""
    for at in range(0, count, 4):
        function.write(VPD + 2, at.to_bytes(2, "little"))
        if not function.read(VPD + 3, 1)[0] & 0x80:
            return data
        data += function.read(VPD + 4, 4)
    return data


def test_vpd_is_read_through_its_registers() -> None:
    vpd = make_vpd("SW_MNG")
    assert read_vpd(VirtualFunction(parse_function(NIC)), len(vpd))[:len(vpd)] == vpd
    assert vpd.startswith(b"\x82\x06\0SW_MNG\x90\x14\0PN\x06SW_MNG")


def test_a_silent_vpd_never_answers() -> None:
    assert read_vpd(VirtualFunction(parse_function(NIC + "/vpd-error=1")), 4) == b""


@pytest.mark.parametrize(("text", "state"), [(GPU, 1), (GPU.replace("+sticky", ""), 0)])
def test_a_function_level_reset_clears_what_hardware_forgets(text: str, state: int) -> None:
    function = VirtualFunction(parse_function(text))
    function.write(MAILBOX + STATE, (1).to_bytes(4, "little"))
    function.write(4, b"\x06\0")
    function.write(DEVCTL, (1 << 15).to_bytes(2, "little"))
    assert (word(function, MAILBOX + STATE), word(function, MAILBOX + RESETS), function.read(4, 1)) == (state, 1, b"\0")


def test_identity_is_not_writable_and_off_the_bus_all_is_ones() -> None:
    function = VirtualFunction(parse_function(GPU))
    function.write(0, b"\0" * 16)
    function.write_bar(0, 0, b"\0" * 4)
    assert function.read(0, 4).hex() == "de103023"
    assert function.read_bar(0, 0, 4).hex() == "a1000018"
    function.is_off_bus = True
    assert function.read(0, 4) == function.read_bar(0, 0, 4) == b"\xff" * 4


@pytest.mark.parametrize(("text", "problem"), [
    ("0001:40:00.0/10de:2330/030200", "--route a"),
    ("0000:40:00.0/10de:2330", "no PCI function"),
    ("0000:40:00.0/10de:2330/030200/bus=41-41", "knows no bus"),
    ("0000:40:00.0/10de:2330/030200/numa=1", "knows no numa"),
])
def test_what_route_b_has_not_is_told(text: str, problem: str) -> None:
    with pytest.raises(LabError, match=problem):
        parse_function(text)


def test_buses_get_their_numbers_by_bridges() -> None:
    rows = parse_functions(",".join((
        "0000:40:00.0/10de:2330/030200", "0000:41:00.0/10de:2330/030200", "0000:50:00.0/10de:22a3/068000",
        "0000:50:01.0/10de:22a3/068000")))
    words = make_devices(rows, {row.bdf: Path(f"/run/{row.bdf}") for row in rows})
    assert words[:5] == (
        "pxb-pcie,id=root3f,bus_nr=63,bus=pcie.0",
        "pcie-root-port,id=bus40,bus=root3f,addr=0,chassis=1,slot=1,io-reserve=0",
        "pcie-root-port,id=bus41,bus=root3f,addr=1,chassis=2,slot=2,io-reserve=0",
        "pxb-pcie,id=root4f,bus_nr=79,bus=pcie.0",
        "pcie-pci-bridge,id=bus50,bus=root4f,addr=0",
    )
    assert all("vfio-user-pci" in word for word in words[5:]) and len(words) == 9


def test_the_lab_s_files_without_the_module() -> None:
    texts = {"/lab/modules": "/lab/virtio_blk.ko\n/lab/lab_pci.ko fn=x\n", "/etc/x": "write /proc/lab-pci off y",
             "/lab/events": "sleep 5\nwrite /proc/lab-pci off 0000:40:00.0\n"}
    assert move_out(texts) == {"/lab/modules": "/lab/virtio_blk.ko\n", "/etc/x": "write /proc/lab-pci off y",
                               "/lab/events": "sleep 5\nsay lab-pci off 0000:40:00.0\n"}
    assert "/lab/modules" not in move_out({"/lab/modules": "/lab/lab_pci.ko fn=x\n"})
