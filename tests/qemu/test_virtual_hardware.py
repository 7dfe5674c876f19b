# SPDX-License-Identifier: Apache-2.0
"""lab_pci.ko seen from inside a guest: what sysfs shows, what a reset clears, what a fault looks like."""

from __future__ import annotations

import pytest

from nvrc_lab.run.probing import MOUNTS, probe, told

pytestmark = pytest.mark.qemu

SYSFS = "/sys/bus/pci/devices"
MACHINE = ",".join((
    "0000:40:00.0/10de:2330/030200/attach_ms=100/uuid=00112233445566778899aabbccddeeff",
    "0000:40:01.0/10de:22a3/068000",
    "0000:41:00.0/15b3:1021/020700/vpd=SW_MNG%20port",
    "0000:41:01.0/15b3:1021/020700/sub=15b3:0001/rev=00/irq=10/vpd=ConnectX-7",
    "0000:41:02.0/15b3:1021/020700/vpd=SW_MNG/vpd-error=1",
    "0001:10:00.0/8086:3420/060400/bus=11-11",
    "0001:11:00.0/10de:2901/030200/numa=0/bars=16M+1G+32M",
))
WRONG_KEY, TWICE = "0000:40:00.0/10de:2330/030200/colour=red", "0000:40:00.0/10de:2330/030200,0000:40:00.0/10de:2330/030200"
SCRIPT = f"""{MOUNTS}
ls {SYSFS}
cat {SYSFS}/0000:40:00.0/vendor
cat {SYSFS}/0000:40:00.0/device
cat {SYSFS}/0000:40:00.0/class
cat {SYSFS}/0000:40:00.0/subsystem_device
cat {SYSFS}/0000:40:00.0/numa_node
cat {SYSFS}/0001:11:00.0/numa_node
cat {SYSFS}/0000:41:01.0/subsystem_device
cat {SYSFS}/0000:41:01.0/revision
cat {SYSFS}/0000:41:01.0/irq
cat {SYSFS}/0001:11:00.0/resource
link {SYSFS}/0001:11:00.0
hex {SYSFS}/0000:41:00.0/vpd
hex {SYSFS}/0000:41:02.0/vpd
hex {SYSFS}/0000:41:01.0/vpd
write /proc/lab-pci vpd-error 0000:41:01.0 1
hex {SYSFS}/0000:41:01.0/vpd
hex {SYSFS}/0000:40:00.0/vpd
write /proc/lab-pci set 0000:40:00.0 state 1
cat /proc/lab-pci
say before reset
write {SYSFS}/0000:40:00.0/reset 1
cat /proc/lab-pci
say after reset
hex {SYSFS}/0000:40:00.0/config 4
write /proc/lab-pci off 0000:40:00.0
hex {SYSFS}/0000:40:00.0/config 4
write /proc/lab-pci on 0000:40:00.0
hex {SYSFS}/0000:40:00.0/config 4
write /proc/lab-pci off 0000:99:00.0
rmmod lab_pci
ls {SYSFS}
insmod /lab/lab_pci.ko fn={WRONG_KEY}
insmod /lab/lab_pci.ko fn={TWICE}
kmsg BUG
kmsg WARNING
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return probe(MACHINE, SCRIPT)


def attribute(lines: list[str], name: str) -> list[str]:
    return told(lines, f"cat {SYSFS}/{name}")


def test_functions_and_their_bridge_are_on_the_bus(lines: list[str]) -> None:
    found = told(lines, f"ls {SYSFS}")[0].split()
    assert [name for name in found if not name.startswith("0000:00:")] == [
        "0000:40:00.0", "0000:40:01.0", "0000:41:00.0", "0000:41:01.0", "0000:41:02.0", "0001:10:00.0", "0001:11:00.0"]
    assert told(lines, f"link {SYSFS}/0001:11:00.0") == ["-> ../../../devices/pci0001:10/0001:10:00.0/0001:11:00.0"]


@pytest.mark.parametrize(("name", "value"), [
    ("0000:40:00.0/vendor", "0x10de"),
    ("0000:40:00.0/device", "0x2330"),
    ("0000:40:00.0/class", "0x030200"),
    ("0000:40:00.0/subsystem_device", "0x16c1"),
    ("0000:40:00.0/numa_node", "-1"),
    ("0001:11:00.0/numa_node", "0"),
    ("0000:41:01.0/subsystem_device", "0x0001"),
    ("0000:41:01.0/revision", "0x00"),
    ("0000:41:01.0/irq", "10"),
])
def test_identity_is_as_described(lines: list[str], name: str, value: str) -> None:
    assert attribute(lines, name) == [value]


def test_bars_are_sized_and_assigned_behind_a_bridge(lines: list[str]) -> None:
    spans = [[int(word, 16) for word in row.split()[:2]] for row in attribute(lines, "0001:11:00.0/resource")]
    sizes = [end - start + 1 if end else 0 for start, end in spans]
    assert sizes[:6] == [16 << 20, 0, 1 << 30, 0, 32 << 20, 0]
    assert all(start >= 1 << 36 for start, end in spans if end)


def test_vpd_reads_or_is_absent(lines: list[str]) -> None:
    text = bytes.fromhex(told(lines, f"hex {SYSFS}/0000:41:00.0/vpd")[0])
    assert text.startswith(b"\x82\x0b\x00SW_MNG port\x90")
    assert text.endswith(b"\x78")
    assert told(lines, f"hex {SYSFS}/0000:40:00.0/vpd") == ["error ENOENT"]


def test_vpd_that_never_answers_reads_empty_and_one_that_stops_answering_times_out(lines: list[str]) -> None:
    assert told(lines, f"hex {SYSFS}/0000:41:02.0/vpd") == [""]
    assert told(lines, f"hex {SYSFS}/0000:41:01.0/vpd")[-1] == "error ETIMEDOUT"


def test_function_level_reset_clears_the_state_and_keeps_the_function_usable(lines: list[str]) -> None:
    rows = [row for row in told(lines, "cat /proc/lab-pci") if row.startswith("0000:40:00.0")]
    assert "attached=1 resets=0" in rows[0]
    assert "attached=0 resets=1" in rows[1]
    assert told(lines, f"write {SYSFS}/0000:40:00.0/reset") == ["ok"]


def test_a_function_that_fell_off_the_bus_reads_all_ones(lines: list[str]) -> None:
    assert told(lines, f"hex {SYSFS}/0000:40:00.0/config") == ["de103023", "ffffffff", "de103023"]


def test_a_command_for_an_unknown_function_is_refused_and_nothing_went_wrong(lines: list[str]) -> None:
    assert told(lines, "write /proc/lab-pci")[-1] == "error ENODEV"
    assert told(lines, "rmmod lab_pci") == ["ok"]
    assert not told(lines, "kmsg")


def test_a_wrong_description_is_refused_with_its_reason(lines: list[str]) -> None:
    assert [row.partition(" ms=")[0] for row in told(lines, "insmod /lab/lab_pci.ko")] == ["error ENOKEY", "error EEXIST"]
    for why in ("key 'colour', value 'red': error -126", "0000:40:00.0: described twice"):
        assert any(why in line for line in lines), why


def test_a_wrong_description_ends_the_boot() -> None:
    lines = probe("0000:40:00.0/10de:2330", MOUNTS)
    assert any("want DDDD:BB:SS.F/VENDOR:DEVICE/CLASS" in line for line in lines)
    assert any(line.startswith("labinit: FATAL load /lab/lab_pci.ko") for line in lines)
    assert not told(lines, "mount")
