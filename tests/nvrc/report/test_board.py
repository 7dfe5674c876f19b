# SPDX-License-Identifier: Apache-2.0
"""The picture of the machine, parsed: which boxes it has, what hangs below what, and what is red."""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.records import records
from nvrc.commands import report as command
from nvrc.report.board import LEFT, MISSING, name_devices, place_boxes, render_board
from nvrc.report.links import PairRecord, PlaceRecord
from nvrc.report.networks import FabricRecord, NicRecord
from nvrc.report.report import FunctionRecord, Report, Role, to_json
from nvrc.report.svg import CHAR_W
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.verdict import Verdict

SVG = "{http://www.w3.org/2000/svg}"
FAST = {"speed": "32.0 GT/s PCIe", "width": "16", "most_speed": "32.0 GT/s PCIe", "most_width": "16"}
PORT, UP = "0001:10:00.0", "0001:11:00.0"
GPU, NIC, FAR = "0001:13:00.0", "0001:14:00.0", "0001:55:00.0"
GOOD = Report(
    program="nvrc 1", verdict=Verdict.READY, mode="gpu", started_s=1.0,
    topology=(FunctionRecord(bdf=GPU, ids="10de:2330", pci_class="030200", role=Role.GPU),
              FunctionRecord(bdf=NIC, ids="15b3:101e", pci_class="020000", role=Role.NIC),
              FunctionRecord(bdf=FAR, ids="10de:2330", pci_class="030200", role=Role.GPU)),
    gpus=(GpuRecord(bdf=GPU, state=GpuState.ATTACHED), GpuRecord(bdf=FAR, state=GpuState.ATTACHED)),
    nics=(NicRecord(bdf=NIC, kind="RoCE VF"),),
    fabric=(FabricRecord(gpu=GPU, state="completed", status="success", clique=1),),
    places=(PlaceRecord(bdf=GPU, root="pci0001:10", bridges=(PORT, UP, "0001:12:00.0"), numa=0, nvlinks=18, required=18, **FAST),
            PlaceRecord(bdf=NIC, root="pci0001:10", bridges=(PORT, UP, "0001:12:01.0"), numa=0, **FAST),
            PlaceRecord(bdf=FAR, root="pci0001:50", bridges=("0001:50:00.0",), numa=1, nvlinks=18, required=18, **FAST)),
    pairs=(PairRecord(one=GPU, other=FAR, ancestor="SYS", nvlinks=18),))


def texts(picture: str, fill: str = "") -> list[str]:
    root = ElementTree.fromstring(picture)
    return [one.text or "" for one in root.iter(f"{SVG}text") if not fill or one.get("fill") == fill]


def test_boxes_stand_in_the_tree_as_the_bus_has_them() -> None:
    boxes = place_boxes(GOOD)
    assert [box.key[-1] for box in boxes] == ["pci0001:10", "pci0001:50", PORT, "0001:50:00.0", UP, FAR, "0001:12:00.0",
                                              "0001:12:01.0", GPU, NIC]
    assert {box.key[-1]: box.row for box in boxes if box.key[-1] in (GPU, NIC, FAR, UP)} == {GPU: 0, NIC: 1, FAR: 2, UP: 0.5}
    assert [box.note for box in boxes[:2]] == ["NUMA node 0", "NUMA node 1"]


@pytest.mark.parametrize(("places", "said"), [
    pytest.param((replace(GOOD.places[0], bridges=("x",) * 33),), "more than 32 bridges", id="deep"),
    pytest.param((GOOD.places[0],) * 513, "at most 512", id="many"),
])
def test_a_tree_that_no_machine_has_is_refused(places: tuple[PlaceRecord, ...], said: str) -> None:
    """A hostile guest's report of 200 KB took gigabytes."""
    report = replace(GOOD, places=places)
    with pytest.raises(FormatError, match=said):
        render_board(report)
    with pytest.raises(FormatError, match=said):
        name_devices(report)


@pytest.mark.long
def test_what_is_told_of_a_place_is_cut() -> None:
    picture = render_board(replace(GOOD, places=(replace(GOOD.places[0], speed="x" * 100_000), *GOOD.places[1:])))
    assert len(texts(picture, MISSING)) < 40


def test_a_whole_machine_has_nothing_red() -> None:
    picture = render_board(GOOD)
    assert MISSING not in picture
    assert {"gpu: 2 GPUs, 1 NIC", f"GPU0  {GPU}", f"NIC0  {NIC}", f"GPU1  {FAR}", "NVLink", "18", "nothing is missing"} <= set(texts(picture))


@pytest.mark.parametrize(("broken", "line"), [
    (replace(GOOD, places=(replace(GOOD.places[0], nvlinks=17), *GOOD.places[1:])), f"GPU0 {GPU}: 17 of 18 NVLinks are active"),
    (replace(GOOD, places=(replace(GOOD.places[0], width="8"), *GOOD.places[1:])),
     f"GPU0 {GPU}: its link is 32.0 GT/s PCIe x8 and can be 32.0 GT/s PCIe x16"),
    (replace(GOOD, gpus=(GpuRecord(bdf=GPU, state=GpuState.FAILED),)), f"GPU0 {GPU}: it is failed"),
    (replace(GOOD, nics=(NicRecord(bdf=NIC, kind="RoCE VF", code="E_NIC_GID"),)), f"NIC0 {NIC}: withheld from containers (E_NIC_GID)"),
    (replace(GOOD, fabric=(FabricRecord(gpu=GPU, state="in progress", status="success", clique=0),)),
     f"GPU0 {GPU}: its registration with the NVLink fabric is in progress, success"),
    (replace(GOOD, places=GOOD.places[:2]), f"GPU {FAR} (10de:2330): its place is not in the report"),
])
def test_what_is_missing_is_red_and_a_line_of_its_own(broken: Report, line: str) -> None:
    assert line in texts(render_board(broken), MISSING)
    assert "nothing is missing" not in texts(render_board(broken))


def test_a_machine_without_places_is_a_picture_too() -> None:
    assert "cpu: 0 GPUs, 0 NICs" in texts(render_board(Report(program="nvrc 1", mode="cpu", started_s=1.0)))


def test_the_command_draws_into_a_file_and_to_its_output(tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_bytes(to_json(GOOD))
    out = io.StringIO()
    for target in ("-", str(tmp_path / "board.svg")):
        asked = argparse.Namespace(file=str(tmp_path / "boot.json"), json=False, svg=None, board=target)
        assert command.run(asked, out) == 0
    assert out.getvalue() == (tmp_path / "board.svg").read_text() == render_board(GOOD)


@given(records(Report))
def test_any_report_is_drawn(report: Report) -> None:
    ElementTree.fromstring(render_board(report))


@given(st.text(max_size=40))
def test_no_text_of_a_report_is_markup(text: str) -> None:
    ElementTree.fromstring(render_board(replace(GOOD, mode=text, places=(replace(GOOD.places[0], root=text, speed=text), *GOOD.places[1:]))))


def test_what_is_missing_is_wrapped_to_the_width_of_the_picture() -> None:
    status = " ".join(["an unusual status that is told in many words"] * 5)
    narrow = replace(GOOD, places=(replace(GOOD.places[0], bridges=(), nvlinks=0, required=0),), topology=GOOD.topology[:1],
                     fabric=(replace(GOOD.fabric[0], status=status),))
    picture = render_board(narrow)
    lines = texts(picture, MISSING)[1:]
    width = int(ElementTree.fromstring(picture).attrib["width"])
    assert " ".join(lines) == f"GPU0 {GPU}: its registration with the NVLink fabric is completed, {status}"
    assert len(lines) > 2
    assert max(map(len, lines)) * CHAR_W <= width - 2 * LEFT


@pytest.mark.parametrize(("role", "note"), [(Role.NVSWITCH, "4 NVSwitches"), (Role.MANAGEMENT_NIC, "4 switch ports")])
def test_the_fabric_is_named_by_its_switches(role: Role, note: str) -> None:
    assert not {"4 NVSwitches", "4 switch ports"} & set(texts(render_board(GOOD)))
    switches = tuple(FunctionRecord(bdf=f"0000:50:0{n}.0", ids="10de:22a3", pci_class="068000", role=role) for n in range(4))
    assert note in texts(render_board(replace(GOOD, topology=(*GOOD.topology, *switches))))
