# SPDX-License-Identifier: Apache-2.0
"""Where devices are in the PCI tree, what lies between two of them, and the file that NCCL reads of it."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.commands import topology as command
from nvrc.hardware.links import ACS, ATS, Place, ancestor, read_place, read_places
from nvrc.hardware.nccl import switches, write_topology
from nvrc.hardware.nccl_given import MOST_ELEMENTS, fill_in, read_given, read_tags
from nvrc.hardware.topology import PciFunction, classify, scan
from nvrc.report.links import PairRecord, PlaceRecord
from nvrc.report.report import FunctionRecord, Report, Role, to_json
from nvrc.steps.places import board_name
from nvrc.vocabulary.errors import NvrcError

PORT, UP, LEFT, RIGHT = "0000:00:02.0", "0000:01:00.0", "0000:02:00.0", "0000:02:01.0"
GPU, NIC, FAR, OTHER = "0000:03:00.0", "0000:04:00.0", "0000:05:00.0", "0000:81:00.0"


def config(*capabilities: int) -> bytes:
    """A configuration space with these extended capabilities, one after another."""
    space = bytearray(4096)
    for number, capability in enumerate(capabilities):
        at, following = 0x100 + 0x40 * number, 0x100 + 0x40 * (number + 1)
        last = number == len(capabilities) - 1
        space[at:at + 4] = (capability | 1 << 16 | (0 if last else following) << 20).to_bytes(4, "little")
    return bytes(space)


def add(system: FakeSystem, way: str, ids: str, pci_class: str, *, numa: int = 0, capabilities: tuple[int, ...] = ()) -> None:
    bdf = way.rpartition("/")[2]
    vendor, device = ids.split(":")
    for name, value in (("vendor", f"0x{vendor}"), ("device", f"0x{device}"), ("class", f"0x{pci_class}"), ("numa_node", str(numa)),
                        ("current_link_speed", "16.0 GT/s PCIe"), ("current_link_width", "8"),
                        ("max_link_speed", "32.0 GT/s PCIe"), ("max_link_width", "16")):
        system.put(f"/sys/devices/{way}/{name}", f"{value}\n")
    system.put(f"/sys/devices/{way}/config", config(*capabilities))
    os.symlink(f"../../../devices/{way}", system.real_path(f"/sys/bus/pci/devices/{bdf}"))


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    """A switch with a GPU and a NIC below root port 2, a GPU on a port of its own, and one on another node."""
    system = bare_guest(str(tmp_path))
    add(system, f"pci0000:00/{PORT}", "1b36:000c", "060400", capabilities=(ACS,))
    add(system, f"pci0000:00/{PORT}/{UP}", "104c:8232", "060400")
    add(system, f"pci0000:00/{PORT}/{UP}/{LEFT}", "104c:8233", "060400", capabilities=(0x01, ACS))
    add(system, f"pci0000:00/{PORT}/{UP}/{RIGHT}", "104c:8233", "060400")
    add(system, f"pci0000:00/{PORT}/{UP}/{LEFT}/{GPU}", "10de:2330", "030200", capabilities=(0x03, ATS))
    add(system, f"pci0000:00/{PORT}/{UP}/{RIGHT}/{NIC}", "15b3:101e", "020000")
    add(system, f"pci0000:00/0000:00:03.0/{FAR}", "10de:2330", "030200")
    add(system, f"pci0000:80/0000:80:00.0/{OTHER}", "10de:2330", "030200", numa=1)
    return system


def test_a_place_is_what_sysfs_shows(system: FakeSystem) -> None:
    place = read_place(system, GPU)
    assert place == Place(GPU, "pci0000:00", (PORT, UP, LEFT), 0, "16.0 GT/s PCIe", "8", "32.0 GT/s PCIe", "16",
                          has_acs=True, has_ats=True)
    assert (read_place(system, NIC).has_acs, read_place(system, NIC).has_ats) == (False, False)


def test_what_the_kernel_does_not_say_stays_open(system: FakeSystem) -> None:
    for name in ("numa_node", "current_link_speed", "config"):
        os.unlink(system.real_path(f"/sys/bus/pci/devices/{FAR}/{name}"))
    place = read_place(system, FAR)
    assert (place.numa, place.speed, place.has_ats) == (-1, "", False)
    system.put(f"/sys/bus/pci/devices/{OTHER}/numa_node", "-1\n")
    assert read_place(system, OTHER).numa == -1


def test_of_the_configuration_space_headers_alone_are_read(tmp_path: Path) -> None:
    """The kernel asks the device for every four bytes, which in a VM may be an exit each."""
    class Asking(FakeSystem):
        asked = ()

        def read(self, path: str, limit: int = 1 << 20) -> bytes:
            assert not path.endswith("/config")
            return super().read(path, limit)

        def read_parts(self, path: str, at: int, size: int, following: Callable[[bytes], int]) -> None:
            def ask(part: bytes) -> int:
                self.asked = (*self.asked, part)
                return following(part)

            super().read_parts(path, at, size, ask)

    bare_guest(str(tmp_path))
    system = Asking(str(tmp_path))
    add(system, f"pci0000:00/{PORT}", "1b36:000c", "060400", capabilities=(0x01, 0x02, ACS, 0x03))
    add(system, f"pci0000:00/{PORT}/{GPU}", "10de:2330", "030200", capabilities=(0x03, 0x19))
    place = read_place(system, GPU)
    assert (place.bridges, place.has_acs, place.has_ats) == ((PORT,), True, False)
    assert [len(part) for part in system.asked] == [4] * 5


@pytest.mark.parametrize("space", [b"", b"\xff" * 4096, bytes(256), bytes(4096)], ids=["none", "off", "short", "nothing"])
def test_a_space_without_a_chain_has_no_capability(system: FakeSystem, space: bytes) -> None:
    system.put(f"/sys/bus/pci/devices/{GPU}/config", space)
    assert read_place(system, GPU).has_ats is False


def test_a_list_of_the_bus_without_links_tells_no_way(system: FakeSystem) -> None:
    os.makedirs(system.real_path("/sys/bus/pci/devices/0000:99:00.0"))
    place = read_place(system, "0000:99:00.0")
    assert (place.root, place.bridges) == ("", ())


def test_a_chain_of_capabilities_that_goes_round_ends(system: FakeSystem) -> None:
    space = bytearray(4096)
    space[0x100:0x104] = (0x03 | 1 << 16 | 0x100 << 20).to_bytes(4, "little")
    system.put(f"/sys/bus/pci/devices/{GPU}/config", bytes(space))
    assert read_place(system, GPU).has_ats is False


def place(bdf: str, root: str, *bridges: str, numa: int = 0) -> Place:
    return Place(bdf, root, bridges, numa, "", "", "", "", has_acs=False, has_ats=False)


@pytest.mark.parametrize(("one", "other", "expected"), [
    pytest.param(place("a", "r", "p"), place("a", "r", "p"), "X", id="itself"),
    pytest.param(place("a", "r", "p"), place("b", "r", "p"), "PIX", id="functions-of-one-port"),
    pytest.param(place("a", "r", "p", "u", "d1"), place("b", "r", "p", "u", "d2"), "PIX", id="one-switch"),
    pytest.param(place("a", "r", "p", "u", "d1", "v", "e"), place("b", "r", "p", "u", "d2"), "PXB", id="a-switch-behind-a-switch"),
    pytest.param(place("a", "r", "p"), place("b", "r", "q"), "PHB", id="two-root-ports"),
    pytest.param(place("a", "r"), place("b", "r"), "PHB", id="on-the-root-bus-itself"),
    pytest.param(place("a", "r", "p"), place("b", "s", "p"), "NODE", id="two-host-bridges-of-a-node"),
    pytest.param(place("a", "r", "p"), place("b", "s", "q", numa=1), "SYS", id="two-nodes"),
])
def test_what_lies_between(one: Place, other: Place, expected: str) -> None:
    assert ancestor(one, other) == ancestor(other, one) == expected


def test_a_mixed_tree(system: FakeSystem) -> None:
    places = read_places(system, (GPU, NIC, FAR, OTHER, "0000:99:00.0"))
    assert list(places) == [GPU, NIC, FAR, OTHER], "what is not on the bus has no place"
    assert [ancestor(places[GPU], places[bdf]) for bdf in (GPU, NIC, FAR, OTHER)] == ["X", "PIX", "PHB", "SYS"]


# NCCL's file

def described(system: FakeSystem) -> bytes:
    topology = classify(scan(system))
    functions = (*topology.gpus, *topology.nics)
    return write_topology(functions, read_places(system, tuple(one.bdf for one in functions)))


def parents(element: ElementTree.Element, above: tuple[str, ...] = ()) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for child in element:
        name = child.get("busid") or child.get("numaid") or ""
        found[name] = above
        found |= parents(child, (*above, name))
    return found


@pytest.mark.parametrize(("bridges", "counted"), [
    pytest.param((), (), id="on-the-root-bus"),
    pytest.param((PORT,), (), id="a-root-port"),
    pytest.param((PORT, UP), (PORT,), id="a-bridge-to-PCI"),
    pytest.param((PORT, UP, LEFT), (UP,), id="a-switch"),
    pytest.param((PORT, UP, LEFT, "0000:09:00.0", "0000:0a:00.0"), (UP, "0000:09:00.0"), id="a-switch-behind-a-switch"),
])
def test_bridges_count_as_nccl_counts_them(bridges: tuple[str, ...], counted: tuple[str, ...]) -> None:
    assert switches(place("a", "r", *bridges)) == counted


def test_the_file_nests_as_nccl_climbs_the_bus(system: FakeSystem) -> None:
    root = ElementTree.fromstring(described(system))
    assert (root.tag, root.get("version")) == ("system", "1")
    found = parents(root)
    assert found[GPU] == found[NIC] == ("0", UP), "a root port and the ports of a switch are no switches of their own to NCCL"
    assert found[FAR] == ("0",)
    assert found[OTHER] == ("1",)
    (gpu,) = [one for one in root.iter("pci") if one.get("busid") == GPU]
    assert gpu.attrib == {"busid": GPU, "class": "0x030200", "vendor": "0x10de", "device": "0x2330",
                          "link_speed": "32.0 GT/s PCIe", "link_width": "16"}


def test_a_switch_behind_a_switch_stands_inside_of_it() -> None:
    behind, far = ("0000:09:00.0", "0000:0a:00.0"), ("0000:0c:00.0", "0000:0d:00.0", "0000:0e:00.0", "0000:0f:00.0")
    functions = [PciFunction(bdf=bdf, vendor=0x10DE, device=0x2330, pci_class=0x030200) for bdf in (GPU, FAR, OTHER)]
    places = {GPU: place(GPU, "r", PORT, UP, LEFT, *behind, *far[:2]), FAR: place(FAR, "r", PORT, UP, LEFT, *behind), OTHER: place(OTHER, "r")}
    found = parents(ElementTree.fromstring(write_topology(functions, places)))
    assert (found[GPU], found[FAR], found[OTHER]) == (("0", UP, behind[0], far[0]), ("0", UP, behind[0]), ("0",))


@pytest.mark.parametrize(("speed", "width", "said"), [
    ("Unknown", "255", {}), ("Unknown", "16", {"link_width": "16"}), ("", "0", {}), ("2.5 GT/s PCIe", "1", {"link_speed": "2.5 GT/s PCIe", "link_width": "1"})])
def test_nccl_is_not_told_of_a_link_that_a_device_does_not_have(speed: str, width: str, said: Mapping[str, str]) -> None:
    place = Place(GPU, "pci0000:00", (), -1, "", "", speed, width, has_acs=False, has_ats=False)
    function = PciFunction(bdf=GPU, vendor=0x10DE, device=0x2330, pci_class=0x030200)
    (found,) = ElementTree.fromstring(write_topology((function,), {GPU: place})).iter("pci")
    assert {name: value for name, value in found.attrib.items() if name.startswith("link")} == said



def test_our_own_file_keeps_every_rule(system: FakeSystem) -> None:
    text = described(system)
    assert read_given(text, (GPU, FAR, OTHER), (NIC,), {}) == (text, ())


BOARD = """<?xml version="1.0"?>
<!-- eight slots -->
<system version="1">
  <cpu numaid="0" affinity="ff" arch="x86_64" vendor="GenuineIntel">
    <pci busid="ffff:01:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
      <pci busid="gpu:0" class="0x030200"/>
      <pci busid="nic:0" class="0x020700"></pci>
    </pci>
  </cpu>
</system>
"""


PRESENT = {PORT: 0x060400, UP: 0x060400, GPU: 0x030200, NIC: 0x020700, "0000:00:01.0": 0x010000}


def read(text: str) -> str:
    return fill_in(text.encode(), "/f", [GPU], [NIC], PRESENT).decode()


WRITTEN = f"""<system version="1">
  <cpu numaid="0" affinity="ff" arch="x86_64" vendor="GenuineIntel">
    <pci busid="ffff:01:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
      <pci busid="{GPU}" class="0x030200"/>
      <pci busid="{NIC}" class="0x020700"/>
    </pci>
  </cpu>
</system>
"""


def test_the_places_of_a_board_are_filled_in() -> None:
    assert read(BOARD) == WRITTEN, "without the declaration and the comment, which NCCL's parser takes for elements"


@pytest.mark.parametrize(("there", "instead"), [
    pytest.param(' class="0x030200"', '\n        class="0x030200"', id="attributes-on-lines-of-their-own"),
    pytest.param("\n  <cpu", "\n\t<cpu", id="tabs"),
    pytest.param("\n", "\r\n", id="other-line-ends"),
    pytest.param("<!-- eight slots -->", "<!--a=b-->", id="a-comment-that-looks-like-an-attribute"),
    pytest.param('class="0x030200"/>', 'class="0x03" />', id="short-class"),
    pytest.param('class="0x030200"/>', f'class="0x030200" keep="1"><gpu dev="7" sm="90"><nvlink target="{FAR}" count="18"/></gpu></pci>', id="nvlinks-of-the-host"),
    pytest.param("</pci>\n    </pci>", '<nic><net name="mlx5_9"/></nic></pci>\n    </pci>', id="a-network-of-the-host"),
])
def test_what_nccl_would_stumble_over_or_believe_of_the_host_does_not_reach_it(there: str, instead: str) -> None:
    assert there in BOARD
    text = read(BOARD.replace(there, instead))
    assert text == WRITTEN.replace("0x030200", "0x030000") if "0x03\"" in instead else text == WRITTEN


def test_links_between_switches_are_kept() -> None:
    text = read(BOARD.replace('      <pci busid="gpu:0"', '      <pcilink target="ffff:02:00.0"/>\n      <pci busid="gpu:0"'))
    assert '      <pcilink target="ffff:02:00.0"/>\n' in text


@pytest.mark.parametrize(("text", "mistake"), [
    pytest.param("", "is not read: it has no element", id="empty"),
    pytest.param("<system", "is not read: '<system' has no end", id="cut-off"),
    pytest.param('<system version="1">', "is not read: <system> is not closed", id="open"),
    pytest.param(f'<system {" ".join(f"a{number}=" + chr(34) * 2 for number in range(65))}/>',
                 "is not read: <system> has more than 64 attributes", id="attributes"),
    pytest.param('<system version="1"></cpu>', "is not read: </cpu> closes what is not open", id="crossed"),
    pytest.param('<!DOCTYPE x [<!ENTITY a "b">]><system version="1"/>', "is not read: '<!DOCTYPE x [<!ENTIT' stands between tags", id="entities"),
    pytest.param('<system version="1">words</system>', "is not read: 'words</system>' stands between tags", id="text"),
    pytest.param('<system version="1" version="1"/>', "is not read: <system>: 'version' is not an attribute, or is given twice", id="twice"),
    pytest.param("<system version='1'/>", "is not read: <system>: \"version='1'\" is not an attribute, or is given twice", id="quotes"),
    pytest.param('<system version="2"/>', "version 2 is not 1; GPU 0000:03:00.0 of the bus is missing", id="version"),
    pytest.param("<system/>", "<system> has no version; GPU 0000:03:00.0 of the bus is missing", id="no-version"),
    pytest.param(BOARD.replace("cpu", "node"), "<node> is not an element that NCCL knows", id="element"),
    pytest.param(BOARD.replace('numaid="0"', ""), "<cpu> has no numaid", id="no-numaid"),
    pytest.param(BOARD.replace('class="0x030200"', ""), "<pci> has no class", id="no-class"),
    pytest.param(BOARD.replace("0x030200", "GPU"), "class 'GPU' is not a number in hexadecimal", id="class"),
    pytest.param(BOARD.replace("0x030200", "030200"), "class '030200' is not a number in hexadecimal", id="class-without-0x"),
    pytest.param(BOARD.replace("0x030200", "0x03020000"), "class '0x03020000' is not a number", id="class-too-long"),
    pytest.param(BOARD.replace("ffff:01:00.0", "switch-a"), "busid 'switch-a' is not one of a bridge", id="bridge-by-name"),
    pytest.param(BOARD.replace("ffff:01:00.0", "ffff:ffff:ffff:ffff:f"), "busid 'ffff:ffff:ffff:ffff:' is not one of a bridge", id="bridge-too-long"),
    pytest.param(BOARD.replace("ffff:01:00.0", "0000:00:01.0"), "0000:00:01.0 is not a bridge on this bus", id="bridge-is-a-disk"),
    pytest.param(BOARD.replace("ffff:01:00.0", NIC), f"{NIC} is not a bridge on this bus; {NIC} is described twice", id="bridge-is-the-nic"),
    pytest.param(BOARD.replace('      <pci busid="gpu:0"', '      <pci busid="FFFF:0100.0" class="0x060400"/><pci busid="gpu:0"'), "FFFF:0100.0 is described twice", id="bridge-twice"),
    pytest.param(BOARD.replace('0x020700"></pci>', '0x020700"><pci busid="ffff:02:00.0" class="0x060400"/></pci>'), "ffff:02:00.0 stands inside of what is not a bridge", id="inside-a-nic"),
    pytest.param(BOARD.replace("  </cpu>", '  </cpu><cpu numaid="0"/>'), "numaid 0 is given twice", id="node-twice"),
    pytest.param(BOARD.replace('numaid="0"', 'numaid="one"'), "numaid 'one' is not a number", id="node-by-name"),
    pytest.param(BOARD + '<system version="1"/>', "<system> is given twice", id="system-twice"),
    pytest.param(BOARD.replace("32.0 GT/s PCIe", "32 gigatransfers"), "link_speed '32 gigatransfers' is not one that NCCL knows", id="speed"),
    pytest.param(BOARD.replace('link_width="16"', 'link_width="x16"'), "link_width 'x16' is not a number", id="width"),
    pytest.param(BOARD.replace("GenuineIntel", "v" * 254), "vendor 'vvvvvvvvvvvv' is not plain text of 253 characters at most", id="long"),
    pytest.param(BOARD.replace("GenuineIntel", "a&lt;b"), "vendor 'a&lt;b' is not plain text", id="entity"),
    pytest.param(BOARD.replace("  </cpu>", "<p\x05i/></cpu>"), "<p\\x05i> is not an element that NCCL knows", id="unprintable"),
    pytest.param(BOARD.replace("GenuineIntel", "\u20ac"), "vendor '\\u20ac' is not plain text", id="not-ASCII"),
    pytest.param(BOARD.replace("  </cpu>", "".join(f'<pci busid="{n:04x}:ff:00.0" class="0x060400"/>' for n in range(MOST_ELEMENTS)) + "</cpu>"),
                 f"{MOST_ELEMENTS + 5} elements are more than {MOST_ELEMENTS}", id="many"),
    pytest.param(BOARD.replace("  </cpu>", "".join(f'<pci busid="{n:04x}:00:00.0" class="0x060400">' for n in range(31)) + "</pci>" * 31 + "</cpu>"), "<pci> is nested deeper than 32", id="deep"),
    pytest.param(BOARD.replace('"gpu:0"', f'"{FAR}"'), f"GPU {GPU} of the bus is missing; GPU {FAR} is not on the bus", id="other-gpu"),
    pytest.param(BOARD.replace('"nic:0"', '"0000:77:00.0"'), "NIC 0000:77:00.0 is not on the bus", id="other-nic"),
    pytest.param(BOARD.replace("nic:0", "gpu:0").replace("0x020700", "0x030200"), f"{GPU} is described twice", id="described-twice"),
    pytest.param('<system version="1"><pci busid="a" class="0"/></system>', "<pci> stands inside of <system>", id="misplaced"),
])
def test_a_file_that_contradicts_the_bus_or_the_format_is_refused(text: str, mistake: str) -> None:
    with pytest.raises(NvrcError) as caught:
        fill_in(text.encode(), "/etc/nvrc/topology/b.xml", [GPU], [NIC], PRESENT)
    assert (caught.value.code, caught.value.trouble.path) == ("E_TOPOLOGY_FILE", "/etc/nvrc/topology/b.xml")
    assert mistake in caught.value.what


def test_a_nic_may_be_left_out() -> None:
    assert NIC not in read(BOARD.replace('      <pci busid="nic:0" class="0x020700"></pci>\n', ""))


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    assert read_given(b"<" * ((1 << 20) + 1), [], [], {}) == (b"", ("is larger than 1048576 bytes",))


def test_tags() -> None:
    assert list(read_tags('<a b="1"  c_d="x y"/>')) == [("a", {"b": "1", "c_d": "x y"}, True)]
    assert list(read_tags("<a></a >")) == [("a", {}, False), ("/a", {}, False)]


@pytest.mark.parametrize(("devices", "name"), [((0x2330,) * 8, "10de-2330x8"), ((0x2901, 0x2330), "10de-2330-2901x2")])
def test_a_board_has_a_name(devices: tuple[int, ...], name: str) -> None:
    functions = tuple(PciFunction(bdf=f"0000:0{n}:00.0", vendor=0x10DE, device=device, pci_class=0x030200)
                      for n, device in enumerate(devices))
    assert board_name(classify(functions)) == name


# nvrc topology

REPORT = Report(
    program="nvrc", started_s=0.0,
    topology=(FunctionRecord(bdf=GPU, ids="10de:2330", pci_class="030200", role=Role.GPU),
              FunctionRecord(bdf=FAR, ids="10de:2330", pci_class="030200", role=Role.GPU),
              FunctionRecord(bdf=NIC, ids="15b3:101e", pci_class="020000", role=Role.NIC)),
    places=(PlaceRecord(bdf=GPU, root="pci0000:00", bridges=(PORT, UP, LEFT), numa=0, speed="16.0 GT/s PCIe", width="8",
                        most_speed="32.0 GT/s PCIe", most_width="16", acs=True, ats=True, nvlinks=18, required=18),
            PlaceRecord(bdf=NIC, root="pci0000:00", bridges=(PORT, UP, RIGHT), numa=0),
            PlaceRecord(bdf=FAR, root="pci0000:00", bridges=("0000:00:03.0",), nvlinks=18, required=18)),
    pairs=(PairRecord(one=GPU, other=FAR, ancestor="PHB", nvlinks=18, read="ok", write="ok"),))


def shown(tmp_path: Path, report: Report, *words: str) -> tuple[int, str]:
    path, out = tmp_path / "boot.json", io.StringIO()
    path.write_bytes(to_json(report))
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(path), *words]), out), out.getvalue()


def test_the_matrix(tmp_path: Path) -> None:
    status, text = shown(tmp_path, REPORT)
    rows = [line.split() for line in text.splitlines()]
    assert status == 0
    assert rows[0][:3] == ["GPU0", "NIC0", "GPU1"]
    assert rows[1][:6] == ["GPU0", "X", "PIX", "NV18", "0", PORT]
    assert rows[2][:5] == ["NIC0", "PIX", "X", "PHB", "0"]
    assert rows[3][:5] == ["GPU1", "NV18", "PHB", "X", "N/A"]
    assert rows[1][6:] == ["16.0", "GT/s", "PCIe", "x8", "32.0", "GT/s", "PCIe", "x16", "yes", "yes", "18"]
    assert ["NIC0", NIC] in rows


def test_links_that_the_board_must_have_are_missed(tmp_path: Path) -> None:
    broken = replace(REPORT, places=(replace(REPORT.places[0], nvlinks=16), *REPORT.places[1:]))
    status, text = shown(tmp_path, broken)
    assert status == 1
    assert "16 of 18" in text.splitlines()[1]
    assert text.splitlines()[-1] == "GPU0: 16 of 18 NVLinks are active"
    assert shown(tmp_path, broken, "--json")[0] == 1


def test_a_report_without_places(tmp_path: Path) -> None:
    assert shown(tmp_path, Report(program="nvrc", started_s=0.0)) == (0, "the report has no GPU or NIC whose place is known\n")


@pytest.mark.parametrize("text", [b"<a>" * 300_000, b"<a/>" * 200_000, b"<gpu>" * 200_000, b"<system><!---->" * 60_000,
                                  b'<pci busid="">' * 70_000], ids=lambda text: text[:12].decode())
def test_a_file_of_nothing_but_tags_costs_neither_minutes_nor_gigabytes(text: bytes) -> None:
    """It grew with the square of what a pod's initdata may be: half a minute and two gigabytes for 150 KB."""
    tracemalloc.start()
    began_s = time.process_time()
    _, mistakes = read_given(text, [], [], {})
    taken_s, most = time.process_time() - began_s, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mistakes
    assert taken_s < 20
    assert most < 300 << 20
