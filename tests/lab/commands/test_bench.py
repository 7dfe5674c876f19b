# SPDX-License-Identifier: Apache-2.0
"""Figures of boots: what is read from a console, median and spread, table, JSON and picture."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc.report.report import Outcome, Report, StepRecord
from nvrc_lab.commands import bench, chart
from nvrc_lab.ground.errors import LabError
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.figures import MEASURES, Row, gather_figures, measure, measure_steps, summarise
from nvrc_lab.watch.outcome import Told, gather
from nvrc_lab.watch.watch import Ending, Run

LINES = (
    "labinit: clock start=1900000 exec=2000000 cpu=1500000", "agent: clock start=3500000", "container: clock start=5250000",
    "probe: cat /proc/1/stat: 1 (init (x)) S 0 1 1 0 -1 4194560 1 2 3 4 150 20 30 10 20 0 1 0 12 1 2 3",
    "probe: cat /proc/1/status: VmRSS:   18048 kB", "probe: cat /proc/1/status: RssAnon:    5456 kB")
# Of a boot of `cpu` on a busy host, as the lab heard them; the line of the account of times goes on.
RECORDED = (
    "[   61.919430] labinit: clock start=61759856 exec=61937132 cpu=37791663",
    "[   73.033812] agent: clock start=73052015",
    "[   73.300427] probe: cat /proc/1/stat: 1 (nvrc) R 0 0 0 0 -1 4194560 2338 13 0 0 1064 3744 0 0 20 0 1 0 133",
    "[   73.307587] probe: cat /proc/1/status: VmRSS:    13292 kB",
    "[   73.308438] probe: cat /proc/1/status: RssAnon:     5628 kB",
    "[   74.468917] container: clock start=74447887",
)


def told(lines: Sequence[str]) -> Told:
    run = Run(story=Story(), ending=Ending.GUEST, status=0, complaint="", seconds=1.0, console=Path("/c"))
    return gather(run, lines)


def test_figures_of_a_run() -> None:
    assert measure(told(LINES)) == {"kernel": 2000.0, "init_to_agent": 1500.0, "agent_to_container": 1750.0, "total": 5250.0,
                                    "pid1_cpu": 200.0, "children_cpu": 400.0, "pid1_rss": 18048.0, "pid1_anon": 5456.0}


def test_figures_of_a_recorded_boot() -> None:
    assert {name: round(value) for name, value in measure(told(RECORDED)).items()} == {
        "kernel": 61937, "init_to_agent": 11115, "agent_to_container": 1396, "total": 74448, "pid1_cpu": 10288,
        "children_cpu": 0, "pid1_rss": 13292, "pid1_anon": 5628}


def test_what_a_run_did_not_tell_is_absent() -> None:
    assert measure(told(())) == {}
    assert measure(told(LINES[:2]))["total"] == 3500.0
    assert "agent_to_container" not in measure(told(LINES[:2]))


def test_own_time_is_in_the_report_of_an_init_that_tells_its_waiting() -> None:
    steps = (StepRecord(name="filesystems", outcome=Outcome.OK, start_s=1.0, end_s=1.25, waited_s=0.0),
             StepRecord(name="journal", outcome=Outcome.OK, start_s=1.25, end_s=2.0, waited_s=0.5))
    report = Report(program="1", started_s=0.75, ended_s=2.0, steps=steps)
    assert measure(replace(told(()), report=report)) == {"own": 750.0}
    silent = replace(report, steps=(replace(steps[0], waited_s=None),))
    assert measure(replace(told(()), report=silent)) == {}


def test_steps_that_ran() -> None:
    report = Report(program="1", started_s=1.0, steps=(
        StepRecord(name="journal", outcome=Outcome.OK, start_s=1.0, end_s=1.25), StepRecord(name="cdi")))
    assert measure_steps(report) == {"journal": 250.0}


def test_median_and_spread() -> None:
    spread = summarise([3.0, 1.0, 10.0])
    assert (spread.median, spread.low, spread.high, spread.runs) == (3.0, 1.0, 10.0, 3)
    assert str(spread) == "3.0 (1.0–10.0)"
    assert summarise([1.0, 2.0]).median == 1.5
    assert gather_figures([{"a": 1.0}, {"a": 3.0, "b": 5.0}])["b"].runs == 1


def rows() -> list[Row]:
    figures = gather_figures([{name: float(10 * at + 10) for at, name in enumerate(MEASURES)}])
    return [Row(scenario="gpu-1", init="nvrc", figures=figures, steps=gather_figures([{"cdi": 5.0}]), failed=()),
            Row(scenario="gpu-1", init="<other>", figures={}, steps={}, failed=("the agent never ran",))]


def test_the_table_has_every_figure_and_every_failure() -> None:
    text = "\n".join(bench.tables(rows(), {"image": 8_300_000}, "tcg"))
    assert "10.0 (10.0–10.0)" in text
    assert "cdi            5.0 (5.0–5.0)" in text
    assert ": the agent never ran" in text
    assert "size of image: 8.3 MB" in text


def test_the_json_form() -> None:
    document = json.loads(json.dumps(bench.as_json(rows(), {"image": 1}, "tcg")))
    assert document["rows"][0]["figures"]["kernel"] == {"median": 10.0, "low": 10.0, "high": 10.0, "runs": 1}
    assert document["rows"][1]["failed"] == ["the agent never ran"]


def test_the_picture_is_sound_and_to_scale() -> None:
    root = ET.fromstring(chart.draw(rows()))
    bars = [float(one.get("width", "0")) for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.find("{*}title") is not None]
    assert len(bars) == 3
    assert bars[1] == pytest.approx(bars[0] * 2, abs=0.2)
    ET.fromstring(chart.draw([]))


@pytest.mark.parametrize(("words", "what"), [
    (["--runs", "0"], "--runs 0 is not above zero"),
    (["--vs", "/etc/hostname"], "is not an x86-64 ELF program"),
])
def test_orders_that_make_no_sense(words: list[str], what: str) -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(LabError, match=what):
        bench.run(parser.parse_args(words))


def test_who_is_sooner_and_by_how_much() -> None:
    def row(scenario: str, init: str, median: float) -> Row:
        return Row(scenario=scenario, init=init, figures=gather_figures([{"init_to_agent": median}]), steps={}, failed=())

    found = [row("cpu", "nvrc", 99), row("cpu", "nvrc-early", 30), row("cpu", "NVRC", 10), row("cpu", "NVRC-5ms", 9),
             row("gpu-1", "nvrc-early", 400), row("gpu-1", "NVRC", 900)]
    assert bench.compare(found) == [
        "", "cpu: init_to_agent of nvrc-early is 20 ms longer than that of NVRC (30 against 10 ms)",
        "cpu: init_to_agent of nvrc-early is 21 ms longer than that of NVRC-5ms (30 against 9 ms)",
        "gpu-1: init_to_agent of nvrc-early is 500 ms shorter than that of NVRC (400 against 900 ms)"]
    assert bench.compare(found[:2]) == []


def test_each_row_says_who_loads_the_modules() -> None:
    found = [replace(rows()[0], init=name) for name in ("nvrc", "nvrc-early", "NVRC")]
    text = "\n".join(bench.tables(found, {}, "counted"))
    assert [line.split(":")[0].strip() for line in text.splitlines() if "in the kernel" in line or "it loads" in line] == [
        "nvrc", "nvrc-early", "other inits"]
    assert "other inits" not in "\n".join(bench.tables(found[:2], {}, "counted"))
    assert [row["modules"] for row in bench.as_json(found, {}, "counted")["rows"]] == ["init", "early", "early"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("choice", "early"), [
    ("init", {"nvrc": False}), ("early", {"nvrc-early": True}), ("both", {"nvrc": False, "nvrc-early": True}),
])
def test_the_modules_are_the_init_s_or_in_the_kernel_before(tmp_path: Path, choice: str, early: dict[str, bool]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [{"path": "/usr/lib/modules/6.12/overlay.ko"}]}))
    image = BootFiles(kernel=tmp_path / "vmlinuz", initrd=tmp_path / "initrd")
    found = bench.choose_early(image, choice, compared=False)
    assert {name: bool(modules) for name, modules in found.items()} == early


@pytest.mark.parametrize(("choice", "compared"), [("both", False), ("early", False), ("init", True)])
def test_an_image_that_does_not_name_its_modules_is_no_ground_for_a_comparison(tmp_path: Path, choice: str, compared: bool) -> None:
    image = BootFiles(kernel=tmp_path / "vmlinuz", initrd=tmp_path / "initrd")
    with pytest.raises(LabError, match="has no manifest that names its modules"):
        bench.choose_early(image, choice, compared=compared)
    assert bench.choose_early(image, "init", compared=False) == {"nvrc": ()}


def test_several_other_inits_have_names_of_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / "a/NVRC", tmp_path / "b/NVRC", tmp_path / "c/nvrc"]
    assert list(bench.name_others(paths)) == ["NVRC", "b/NVRC", "c/nvrc"]
    with pytest.raises(LabError, match="two programs would be called b/NVRC"):
        bench.name_others([*paths, tmp_path / "b/NVRC"])


def test_modules_that_katas_kernel_has_built_in_come_from_the_manifest_in_loading_order(tmp_path: Path) -> None:
    base = "/usr/lib/modules/6.12/kernel"
    files = [{"path": f"{base}/{name}"} for name in ("net/virtio_net.ko", "fs/overlay.ko", "md/dm-mod.ko", "net/failover.ko")]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [{"path": "/init"}, *files]}))
    assert bench.list_built_in(tmp_path / "initrd") == (
        f"{base}/fs/overlay.ko", f"{base}/net/failover.ko", f"{base}/net/virtio_net.ko")
    assert bench.list_built_in(tmp_path / "elsewhere/initrd") == ()


@pytest.mark.parametrize("word", ["/usr/bin/x", "usr/bin/x=f", "/usr/bin/x="])
def test_a_file_of_the_other_init_is_a_path_and_a_file(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not /PATH/IN/THE/GUEST=FILE"):
        bench.read_file_word(word)
    assert bench.read_file_word("/usr/bin/x=./y") == ("/usr/bin/x", Path("y"))
