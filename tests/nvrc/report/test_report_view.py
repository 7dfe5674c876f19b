# SPDX-License-Identifier: Apache-2.0
"""The report as a table and as a picture. The picture is parsed, and its bars are measured."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.records import records
from fakes.trouble import trouble
from nvrc.report.findings import CdiRecord, ConfidentialRecord, MigRecord, ReadyRecord, SettingRecord
from nvrc.report.report import FunctionRecord, ParameterRecord, Report, Role, SpanRecord, StepRecord
from nvrc.report.status import ServiceRecord, ServiceState, Status
from nvrc.report.svg import COLOURS, WIDTH, Axis, render_svg
from nvrc.report.view import align, section, show_report, show_status
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

SVG = "{http://www.w3.org/2000/svg}"
FLOATS = st.floats(allow_nan=False, allow_infinity=False)

BOOT = Report(
    program="nvrc 0.1.0", verdict=Verdict.FAILED, mode="gpu", started_s=2.0, interpreter_s=0.04, ended_s=6.0,
    failure=Trouble(code="E_STEP_DEADLINE", step="modules", what="did not finish", hint="raise it"),
    steps=(
        StepRecord(name="filesystems", outcome=Outcome.OK, start_s=2.0, end_s=2.5, detail="6 mounts"),
        StepRecord(name="loopback", outcome=Outcome.OK, start_s=2.5, end_s=4.5),
        StepRecord(name="extensions", outcome=Outcome.WARN, start_s=2.5, end_s=3.5, code="E_MOUNT"),
        StepRecord(name="fabric", outcome=Outcome.SKIP, start_s=2.5, end_s=2.5),
        StepRecord(name="modules", outcome=Outcome.FAIL, start_s=2.5, end_s=6.0, waited_s=3.0, code="E_STEP_DEADLINE"),
        StepRecord(name="cdi", outcome=Outcome.RUNNING, start_s=3.0, end_s=3.0),
        StepRecord(name="agent"),
    ),
    beside=(SpanRecord(name="library scan", start_s=2.6, end_s=3.1),),
    policy="ab12",
    parameters=(ParameterRecord(name="nvrc.log", value="debug", source="command line"),
                ParameterRecord(name="nvrc.strict", value="off", source="default")),
    topology=(FunctionRecord(bdf="0000:41:00.0", ids="10de:2330", pci_class="030200", role=Role.GPU),
              FunctionRecord(bdf="0000:00:01.0", ids="1234:1111", pci_class="030000", role=Role.OTHER)),
    gpus=(GpuRecord(bdf="0000:41:00.0", uuid="GPU-1", state=GpuState.ATTACHED, seconds=3.1),
          GpuRecord(bdf="0000:42:00.0", state=GpuState.FAILED, code="E_X")),
    settings=(SettingRecord(gpu="0000:41:00.0", name="nvrc.smi.pl", asked=500, got=500),
              SettingRecord(gpu="0000:41:00.0", name="nvrc.smi.lgc", asked=1501, got=1500)),
    mig=(MigRecord(gpu="0000:41:00.0", profiles=("3g.40gb", "4g.40gb"), changed=True), MigRecord(gpu="0000:42:00.0")),
    confidential=ConfidentialRecord(mode="on", why="NVML: feature on"),
    cdi=CdiRecord(version="0.6.0", driver="595.58.03", devices=3, nodes=6, mounts=14, hooks=4, missing=("no nvscibuf",),
                  left_out=("GPU 1: no node",)),
    ready=ReadyRecord(outcome="left", accepts=False, why="nobody asked for it"),
    troubles=(trouble("E_GPU_ATTACH", "persistenced", "GPU 0000:42:00.0 failed to attach", "reset it"),),
    notes=("a note",), log=("last\x1b[31m words",))


def test_table_of_a_whole_report() -> None:
    assert show_report(BOOT) == """\
nvrc 0.1.0: failed, mode gpu
kernel 1.960 s, interpreter 0.040 s, boot 4.000 s

step         outcome  start   seconds  waited  detail
filesystems  ok       +0.000  0.500            6 mounts
loopback     ok       +0.500  2.000
extensions   warn     +0.500  1.000            E_MOUNT
fabric       skip     +0.500  0.000
modules      fail     +0.500  3.500    3.000   E_STEP_DEADLINE
cdi          running  +1.000  0.000
agent        pending

E_STEP_DEADLINE in step modules: did not finish
  raise it

beside the steps:
  library scan  +0.600  0.500 s

GPUs:
  0000:41:00.0  attached  3.100 s  GPU-1
  0000:42:00.0  failed                    E_X

PCI functions that decide the mode:
  gpu  0000:41:00.0  10de:2330 class 030200

parameters that were set:
  nvrc.log  debug  (command line)

policy of the image:
  sha256 ab12

GPU settings:
  0000:41:00.0  nvrc.smi.pl=500
  0000:41:00.0  nvrc.smi.lgc=1501  reads 1500

MIG:
  0000:41:00.0  made       3g.40gb, 4g.40gb
  0000:42:00.0  as it was  off

found:
  confidential mode  on: NVML: feature on
  CDI document       version 0.6.0, driver 595.58.03: 3 devices, 6 nodes, 14 mounts, 4 hooks
  not in it          GPU 1: no node
  not in it          no nvscibuf
  ready state        left, the GPUs accept no work: nobody asked for it

troubles:
  E_GPU_ATTACH GPU 0000:42:00.0 failed to attach

notes:
  a note

last log lines:
  last\\x1b[31m words
"""


def test_table_of_an_empty_report() -> None:
    assert show_report(Report(program="nvrc 0.1.0", started_s=2.0)) == (
        "nvrc 0.1.0: booting\nkernel 2.000 s\n\nstep  outcome  start  seconds  waited  detail\n")


def test_table_of_a_status_with_a_failure() -> None:
    assert show_status(Status(
        program="nvrc 0.1.0", verdict=Verdict.DEGRADED, mode="gpu", updated_s=9.0, orphans_reaped=3, log_messages=5,
        log_dropped=1, failure=BOOT.failure, gpus=BOOT.gpus[:1], troubles=BOOT.troubles, notes=("w",),
        services=(ServiceRecord(name="dcgm", state=ServiceState.FAILED, since_s=2.0, restarts=2, detail="exit 1"),))) == """\
nvrc 0.1.0: degraded, mode gpu
as of 9.000 s after the kernel started; 3 orphans reaped, 5 log messages, 1 dropped

E_STEP_DEADLINE in step modules: did not finish
  raise it

services:
  dcgm  failed    2 restarts  since 2.000 s  exit 1

GPUs:
  0000:41:00.0  attached  3.100 s  GPU-1

troubles:
  E_GPU_ATTACH GPU 0000:42:00.0 failed to attach

notes:
  w
"""


def test_alignment_and_sections_of_nothing() -> None:
    assert align([]) == []
    assert section("title", []) == []


# The picture ----------------------------------------------------------------------------------------------------------


class Picture:
    def __init__(self, report: Report) -> None:
        self.root = ElementTree.fromstring(render_svg(report))  # our own text

    def texts(self) -> list[str]:
        return [element.text or "" for element in self.root.iter(f"{SVG}text")]

    def bars(self) -> dict[str, ElementTree.Element]:
        """Bars of the lanes, by the name in their tooltip."""
        bars = {}
        for rect in self.root.iter(f"{SVG}rect"):
            title = rect.find(f"{SVG}title")
            if title is not None and title.text and ": " in title.text:
                bars[title.text.split(":")[0]] = rect
        return bars


def span(bar: ElementTree.Element) -> tuple[float, float]:
    left = float(bar.get("x", ""))
    return left, left + float(bar.get("width", ""))


def test_picture_is_plain_svg() -> None:
    text = render_svg(BOOT)
    assert text.isascii()
    names = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(text).iter()}
    assert names <= {"svg", "title", "rect", "text", "line", "path"}
    assert "href" not in text
    assert "url(" not in text


def test_bars_stand_where_the_times_say() -> None:
    bars = Picture(BOOT).bars()
    assert list(bars) == ["filesystems", "loopback", "extensions", "modules", "cdi", "library scan, in the worker"]
    origin, _ = span(bars["filesystems"])
    per_second = (span(bars["loopback"])[1] - span(bars["loopback"])[0]) / 2
    expected = {"filesystems": (0, 0.5), "loopback": (0.5, 2.5), "extensions": (0.5, 1.5), "modules": (0.5, 4.0),
                "cdi": (1.0, 4.0), "library scan, in the worker": (0.6, 1.1)}
    for name, times in expected.items():
        assert span(bars[name]) == pytest.approx([origin + t * per_second for t in times], abs=0.2), name
    tops = [float(bar.get("y", "")) for bar in bars.values()]
    assert tops == sorted(set(tops)), "one lane per step"


def test_bars_have_the_colour_of_their_outcome() -> None:
    bars = Picture(BOOT).bars()
    assert [bars[name].get("fill") for name in ("loopback", "extensions", "modules", "cdi")] == [
        COLOURS[o] for o in (Outcome.OK, Outcome.WARN, Outcome.FAIL, Outcome.RUNNING)]


def test_waiting_is_a_strip_of_its_share_at_the_foot_of_the_bar() -> None:
    picture = Picture(BOOT)
    strips = [rect for rect in picture.root.iter(f"{SVG}rect")
              if "waited 3.00 s for driver" in (rect.findtext(f"{SVG}title") or "")]
    left, right = span(picture.bars()["modules"])
    assert [span(strip) for strip in strips] == [pytest.approx((left, left + (right - left) * 3 / 3.5), abs=0.2)]


def test_overview_shows_the_time_before_pid_1() -> None:
    root = Picture(BOOT).root
    shares = {(title.text or "").rpartition(" ")[0].rpartition(" ")[0]: rect for rect in root.iter(f"{SVG}rect")
              if (title := rect.find(f"{SVG}title")) is not None and rect.get("height") == "24.0"}
    assert list(shares) == ["kernel", "loader and interpreter", "init"]
    widths = {name: float(rect.get("width", "")) for name, rect in shares.items()}
    assert widths["kernel"] / widths["init"] == pytest.approx(1.96 / 4.0, rel=0.01)
    assert sum(widths.values()) == pytest.approx(WIDTH - 48, abs=0.5)


def test_texts_name_failure_times_and_gpus() -> None:
    texts = Picture(BOOT).texts()
    for text in ("nvrc 0.1.0: failed, mode gpu, 2 GPUs", "kernel 1.96 s", "loader and interpreter 40 ms", "init 4.00 s",
                 "6.00 s since the kernel started", "0 s", "1 s", "4 s", "500 ms", "3.50 s E_STEP_DEADLINE",
                 "3.00 s, not finished", "skipped", "not reached", "E_STEP_DEADLINE after 4.00 s",
                 "E_STEP_DEADLINE in step modules: did not finish", "raise it", "E_GPU_ATTACH GPU 0000:42:00.0 failed to attach", "note: a note",
                 "nvrc.smi.pl=500; nvrc.smi.lgc=1501; MIG on 1 GPUs; confidential mode on; 3 CDI devices, driver 595.58.03; ready state left",
                 "0000:41:00.0 attached in 3.10 s GPU-1", "0000:42:00.0 failed  E_X"):
        assert text in texts
    assert len(texts) == len([text for text in texts if text])


def test_short_boots_are_drawn_in_milliseconds() -> None:
    report = Report(program="p", verdict=Verdict.NO_GPU, started_s=12.0, ended_s=12.03, steps=(
        StepRecord(name="agent", outcome=Outcome.OK, start_s=12.0, end_s=12.03),))
    texts = Picture(report).texts()
    assert [text for text in texts if text.endswith(" ms")] == [
        "init 30 ms", "0 ms", "5 ms", "10 ms", "15 ms", "20 ms", "25 ms", "30 ms",
        "no-gpu after 30 ms", "30 ms"]
    assert "loader and interpreter" not in " ".join(texts)


@pytest.mark.parametrize(("start_s", "anchor", "fill"), [
    pytest.param(0.0, "end", "#ffffff", id="in-a-long-bar"),
    pytest.param(9.99, "end", COLOURS[Outcome.FAIL], id="left-of-a-short-bar"),
])
def test_labels_stay_in_the_picture(start_s: float, anchor: str, fill: str) -> None:
    report = Report(program="p", verdict=Verdict.FAILED, started_s=0.0, ended_s=10.0, steps=(
        StepRecord(name="s", outcome=Outcome.FAIL, start_s=start_s, end_s=10.0, code="E_" + "LONG" * 8),))
    label = next(e for e in Picture(report).root.iter(f"{SVG}text") if "E_LONG" in (e.text or ""))
    assert (label.get("text-anchor"), label.get("fill")) == (anchor, fill)


@pytest.mark.parametrize("span_s", [1e-6, 0.001, 0.03, 0.999, 1.0, 7.9, 8.0, 60.0, 1200.0])
def test_ticks_are_few_round_and_inside(span_s: float) -> None:
    axis = Axis(5.0, 5.0 + span_s, 0, 100)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 11
    assert all(-1e-6 <= axis.x(tick) <= 100 for tick in ticks)
    assert f"{ticks[1] - 5.0:.0e}"[0] in "125"


HOSTILE_STEP = records(StepRecord, name=st.text(max_size=30), start_s=st.none() | FLOATS, end_s=st.none() | FLOATS,
                         outcome=st.sampled_from(tuple(Outcome)), code=st.text(max_size=40), detail=st.text(max_size=40))


@pytest.mark.long
@given(records(
    Report, program=st.text(), mode=st.text(max_size=20), verdict=st.sampled_from(tuple(Verdict)), started_s=FLOATS,
    interpreter_s=st.none() | FLOATS, ended_s=st.none() | FLOATS, failure=st.none() | records(Trouble),
    steps=st.lists(HOSTILE_STEP, max_size=4).map(tuple), notes=st.lists(st.text(), max_size=2).map(tuple),
    troubles=st.lists(records(Trouble), max_size=2).map(tuple), cdi=st.none() | records(CdiRecord),
    gpus=st.lists(records(GpuRecord, seconds=st.none() | FLOATS), max_size=2).map(tuple),
    parameters=st.lists(records(ParameterRecord), max_size=2).map(tuple),
    topology=st.lists(records(FunctionRecord), max_size=2).map(tuple)))
def test_any_report_can_be_shown(report: Report) -> None:
    picture = Picture(report)
    for rect in picture.root.iter(f"{SVG}rect"):
        assert float(rect.get("width", "")) >= 0
    assert show_report(report).replace("\n", "").isprintable()


def test_markup_in_a_report_stays_text() -> None:
    hostile = '</text><script>alert("1")</script>&amp;'
    report = replace(BOOT, program=hostile, steps=(replace(BOOT.steps[0], name="s", detail=hostile),))
    picture = Picture(report)
    assert "script" not in {element.tag.removeprefix(SVG) for element in picture.root.iter()}
    assert f"{hostile}: failed, mode gpu, 2 GPUs" in picture.texts()
