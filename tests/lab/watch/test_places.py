# SPDX-License-Identifier: Apache-2.0
"""What the lab notices where a report and NCCL's file are not what the guest's sysfs has."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from nvrc.report.links import PairRecord, PlaceRecord
from nvrc.report.report import FunctionRecord, Report, Role
from nvrc_lab.scenario.values import Expectation, Gpu, Hardware, Scenario, Verdict
from nvrc_lab.watch.outcome import Told
from nvrc_lab.watch.places import FILE, between, check_places, read_functions

PORT, UP, LEFT, RIGHT = "0001:10:00.0", "0001:11:00.0", "0001:12:00.0", "0001:12:01.0"
GPU, NIC, FAR = "0001:13:00.0", "0001:14:00.0", "0000:40:00.0"
LINK = "16.0 GT/s PCIe|8|32.0 GT/s PCIe|16"
SYSFS = (
    f"function {PORT}|../../../devices/pci0001:10/{PORT}|0|-|-|-|-|060400|0x8086|,b,d",
    f"function {LEFT}|../../../devices/pci0001:10/{PORT}/{UP}/{LEFT}|0|{LINK}|060400|0x1000|,d",
    f"function {GPU}|../../../devices/pci0001:10/{PORT}/{UP}/{LEFT}/{GPU}|0|{LINK}|030200|0x10de|,b",
    f"function {RIGHT}|../../../devices/pci0001:10/{PORT}/{UP}/{RIGHT}|0|{LINK}|060400|0x1000|",
    f"function {NIC}|../../../devices/pci0001:10/{PORT}/{UP}/{RIGHT}/{NIC}|0|{LINK}|020000|0x15b3|,f",
    f"function {UP}|../../../devices/pci0001:10/{PORT}/{UP}|0|{LINK}|060400|0x1000|",
    f"function {FAR}|../../../devices/pci0000:40/{FAR}|1|{LINK}|030200|0x10de|",
    "function 0000:78:00.0|../../../devices/pci0000:78/0000:78:00.0|-1|-|-|-|-|030000|0x1234|",
)
XML = (f'<system version="1"><cpu numaid="0"><pci busid="{UP}" class="0x060400"><pci busid="{GPU}" class="0x030200"/>'
       f'<pci busid="{NIC}" class="0x020000"/></pci></cpu><cpu numaid="1"><pci busid="{FAR}" class="0x030200"/></cpu></system>')
LINKED = PlaceRecord(bdf="", root="", speed="16.0 GT/s PCIe", width="8", most_speed="32.0 GT/s PCIe", most_width="16")
REPORT = Report(
    program="nvrc", started_s=0.0,
    topology=(FunctionRecord(bdf=GPU, ids="10de:2330", pci_class="030200", role=Role.GPU),
              FunctionRecord(bdf=FAR, ids="10de:2330", pci_class="030200", role=Role.GPU),
              FunctionRecord(bdf=NIC, ids="15b3:1021", pci_class="020000", role=Role.NIC)),
    places=(replace(LINKED, bdf=GPU, root="pci0001:10", bridges=(PORT, UP, LEFT), numa=0, acs=True, nvlinks=18),
            replace(LINKED, bdf=FAR, root="pci0000:40", numa=1),
            replace(LINKED, bdf=NIC, root="pci0001:10", bridges=(PORT, UP, RIGHT), numa=0, ats=True)),
    pairs=(PairRecord(one=GPU, other=FAR, ancestor="SYS"),))
MACHINE = Scenario(summary="s", name="s", expect=Expectation(verdict=Verdict.READY), machine=Hardware(gpus=(Gpu(product="H100", at=GPU, nvml={"nvlinks": "18"}),
                                                                 Gpu(product="H100", at=FAR))))


def problems(report: Report = REPORT, sysfs: tuple[str, ...] = SYSFS, xml: str = XML, machine: Scenario = MACHINE) -> list[str]:
    told = SimpleNamespace(report=report, agent=(*sysfs, f"text {FILE}: {xml}"))
    return list(check_places(machine, cast("Told", told)))


def changed(number: int, **fields: object) -> Report:
    places = list(REPORT.places)
    places[number] = replace(places[number], **fields)  # type: ignore[arg-type]
    return replace(REPORT, places=tuple(places))


def test_a_report_that_is_true() -> None:
    assert problems() == []
    assert problems(sysfs=()) == [], "an agent that does not tell"


@pytest.mark.parametrize(("fields", "problem"), [
    ({"root": "pci0000:00"}, "way: "), ({"bridges": (PORT, UP)}, "way: "),
    ({"numa": 1}, "NUMA node: the machine has 0, the report 1"), ({"width": "16"}, "link: "), ({"speed": ""}, "link: "),
    ({"most_speed": "16.0 GT/s PCIe"}, "most: "), ({"most_width": "8"}, "most: "),
    ({"acs": False}, "ACS above: the machine has True, the report False"), ({"ats": True}, "ATS: the machine has False, the report True"),
    ({"nvlinks": 17}, "NVLinks: the machine has 18, the report 17"),
])
def test_a_number_that_is_another(fields: dict[str, object], problem: str) -> None:
    assert problems(changed(0, **fields))[0].startswith(f"place {GPU}: {problem}")


@pytest.mark.parametrize(("number", "fields", "printed", "due"), [
    (0, {"numa": -1}, "GPU0 X SYS PIX N/A", "GPU0 X SYS PIX 0"),
    (0, {"width": "16"}, "16.0 GT/s PCIe x16 32.0", "16.0 GT/s PCIe x8 32.0"),
    (2, {"bridges": ("0001:10:01.0", UP, RIGHT)}, "NIC0 PHB SYS X 0 0001:10:01.0", f"NIC0 PIX SYS X 0 {PORT}"),
])
def test_a_cell_that_the_command_prints(number: int, fields: dict[str, object], printed: str, due: str) -> None:
    (line,) = [one for one in problems(changed(number, **fields)) if one.startswith("nvrc topology prints ") and printed in one]
    assert due in line.partition(", and by sysfs it is ")[2]


def test_a_device_without_a_place() -> None:
    found = problems(replace(REPORT, places=REPORT.places[:2]))
    assert found == [f"places: sysfs has {sorted((GPU, NIC, FAR))}, the report {sorted((GPU, FAR))}"]


def test_a_pair_that_is_farther_apart() -> None:
    assert problems(replace(REPORT, pairs=(PairRecord(one=FAR, other=GPU, ancestor="NODE"),))) == [
        f"pair {GPU} {FAR}: sysfs makes it SYS, the report says NODE"]


@pytest.mark.parametrize(("there", "instead", "problem"), [
    (f'<pci busid="{UP}" class="0x060400">', f'<pci busid="{PORT}" class="0x060400">', f"{GPU} is below {PORT}, and by sysfs below {UP}"),
    ('numaid="1"', 'numaid="0"', f"{FAR} is below 0, and by sysfs below 1"),
    (f'<pci busid="{NIC}" class="0x020000"/>', "", f"{NIC} is missing"),
    ("</system>", "", "no element found"),
])
def test_a_file_for_nccl_that_is_another_machine(there: str, instead: str, problem: str) -> None:
    assert there in XML
    assert any(problem in line for line in problems(xml=XML.replace(there, instead)))


def test_a_file_that_was_given_is_not_the_bus_of_the_guest() -> None:
    assert problems(xml="<", machine=replace(MACHINE, files={"/etc/nvrc/topology/10de-2330x2.xml": "<"})) == []


def test_what_lies_between() -> None:
    found = read_functions(cast("Told", SimpleNamespace(agent=SYSFS)))
    assert [between(found[GPU], found[bdf]) for bdf in (NIC, FAR)] == ["PIX", "SYS"]
