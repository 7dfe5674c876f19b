# SPDX-License-Identifier: Apache-2.0
"""The text of metrics, read by Prometheus's own parser; the table; and the sources that are files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.metrics import parse, value
from nvrc.beside import guest
from nvrc.beside.families import BY_NAME, COUNTER, FAMILIES, Sample, render
from nvrc.beside.gpus import of_gpus
from nvrc.beside.init_state import of_report, of_status
from nvrc.beside.main import FRESH_S, kept, main
from nvrc.report.report import ConfidentialRecord, Report, StepRecord
from nvrc.report.status import ServiceRecord, ServiceState, Status, XidRecord
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

UUID, BDF = "GPU-11111111-2222-3333-4444-555555555555", "0000:41:00.0"


def test_the_table_follows_the_rules_of_names() -> None:
    assert len(BY_NAME) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.startswith("nvrc_")
        assert (family.kind == COUNTER) == family.name.endswith("_total"), family.name
        assert family.help.endswith((".", ")")), family.name


@given(st.lists(st.tuples(st.text(), st.floats()), min_size=1, max_size=5, unique_by=lambda pair: pair[0].encode("utf-8", "replace")))
def test_any_label_and_any_number_reads_back(pairs: list[tuple[str, float]]) -> None:
    text = render(Sample("nvrc_link_up", number, (label,)) for label, number in pairs)
    found = parse(text)
    for label, number in pairs:
        told = found["nvrc_link_up", (("link", label.encode("utf-8", "replace").decode()),)]
        assert told == number or (math.isnan(told) and math.isnan(number))


def test_a_family_without_a_row_and_wrong_labels_are_mistakes() -> None:
    with pytest.raises(KeyError):
        render([Sample("nvrc_nothing", 1)])
    with pytest.raises(ValueError, match="has the labels"):
        render([Sample("nvrc_link_up", 1)])
    assert render([]) == b""


def test_a_series_that_is_told_twice_is_there_once() -> None:
    assert render([Sample("nvrc_link_up", 0, ("a",)), Sample("nvrc_link_up", 1, ("a",))]).count(b'link="a"') == 1


STATUS = Status(
    program="nvrc 0.1.0", verdict=Verdict.DEGRADED, mode="gpu", updated_s=12.0, resident_kib=20000,
    services=(ServiceRecord(name="agent", state=ServiceState.RUNNING, pid=7, since_s=1.0),
              ServiceRecord(name="nvidia-persistenced", state=ServiceState.FAILED, restarts=1, since_s=2.0)),
    gpus=(GpuRecord(bdf=BDF, uuid=UUID, state=GpuState.LOST, code="E_GPU_LOST", seconds=3.5),),
    xids=(XidRecord(gpu=BDF, number=79, count=2),), orphans_reaped=3, log_messages=5, log_dropped=1,
    troubles=(Trouble(code="E_GPU_LOST", step="supervise", what="x", hint="", gpu=BDF, uuid=UUID),))


def test_status_becomes_samples_with_uuid_bus_id_and_serial() -> None:
    text = render(of_status(STATUS, {BDF: "165"}))
    gpu = {"gpu": UUID, "bus_id": BDF, "serial": "165"}
    assert value(text, "nvrc_gpu_state", **gpu, state="lost") == 1
    assert value(text, "nvrc_gpu_state", **gpu, state="attached") == 0
    assert value(text, "nvrc_gpu_xid_total", **gpu, xid="79") == 2
    assert value(text, "nvrc_gpu_attach_seconds", **gpu) == 3.5
    assert value(text, "nvrc_verdict", verdict="degraded") == 1
    assert value(text, "nvrc_verdict", verdict="ready") == 0
    assert value(text, "nvrc_service_up", service="nvidia-persistenced") == 0
    assert value(text, "nvrc_service_restarts_total", service="nvidia-persistenced") == 1
    assert value(text, "nvrc_trouble", code="E_GPU_LOST", step="supervise", service="", gpu=UUID, bus_id=BDF) == 1
    assert value(text, "nvrc_pid1_resident_bytes") == 20000 * 1024


def test_report_becomes_seconds_for_each_step_that_ran() -> None:
    steps = (StepRecord(name="modules", outcome=Outcome.OK, start_s=1.0, end_s=1.5, waited_s=0.25),
             StepRecord(name="cdi", outcome=Outcome.PENDING))
    text = render(of_report(Report(program="nvrc", verdict=Verdict.READY, started_s=0.5, ended_s=2.0, steps=steps,
                                   confidential=ConfidentialRecord(mode="on", why="x"))))
    assert value(text, "nvrc_boot_step_seconds", step="modules") == 0.5
    assert value(text, "nvrc_boot_step_waited_seconds", step="modules") == 0.25
    assert value(text, "nvrc_boot_step_seconds", step="cdi") is None
    assert value(text, "nvrc_boot_seconds") == 1.5
    assert value(text, "nvrc_confidential_mode", mode="on") == 1


def test_what_the_library_does_not_tell_is_left_out() -> None:
    text = render(of_gpus({"driver": "580.1", "ready": 1, "cc": None, "gpus": [
        {"index": 0, "up": True, "uuid": UUID, "bus_id": "00000000:41:00.0", "serial": None, "name": "H100", "graphics": 345,
         "power": 70123, "links": [1, 0], "fabric": 3, "corrected": 0}, {"index": 1, "up": False}]}))
    gpu = {"gpu": UUID, "bus_id": BDF, "serial": ""}
    assert value(text, "nvrc_gpu_clock_hertz", **gpu, clock="graphics") == 345e6
    assert value(text, "nvrc_gpu_power_watts", **gpu) == 70.123
    assert value(text, "nvrc_gpu_temperature_celsius", **gpu) is None
    assert value(text, "nvrc_gpu_ecc_errors_total", **gpu, kind="corrected") == 0
    assert (value(text, "nvrc_gpu_nvlinks_up", **gpu), value(text, "nvrc_gpu_nvlinks_down", **gpu)) == (1, 1)
    assert value(text, "nvrc_gpu_fabric_state", **gpu, state="completed") == 1
    assert value(text, "nvrc_gpus_ready") == 1
    assert value(text, "nvrc_cc_feature") is None
    assert value(text, "nvrc_gpu_up", gpu="", bus_id="", serial="") == 0


@pytest.mark.parametrize("number", [0xFFFFFFFF, (1 << 64) - 1, 1 << 64, -1, 10 ** 400, 1.5, math.nan, "7", None])
def test_a_number_that_is_none_is_left_out(number: object) -> None:
    """NVML has numbers that mean "not available"; others can only come of a library that went wrong."""
    text = render(of_gpus({"gpus": [{"up": True, "power": number, "used": number, "corrected": number, "temperature": 40}]}))
    gpu = {"gpu": "", "bus_id": "", "serial": ""}
    assert value(text, "nvrc_gpu_power_watts", **gpu) is None
    assert value(text, "nvrc_gpu_memory_bytes", **gpu, kind="used") is None
    assert value(text, "nvrc_gpu_ecc_errors_total", **gpu, kind="corrected") is None
    assert value(text, "nvrc_gpu_temperature_celsius", **gpu) == 40


def test_a_flood_of_scrapes_is_one_page_for_half_a_second() -> None:
    made, clock = list[float](), [0.0]

    def make() -> bytes:
        made.append(clock[0])
        return b"%d" % len(made)

    give = kept(make, lambda: clock[0])
    assert [give() for _ in range(1000)] == [b"1"] * 1000
    clock[0] = FRESH_S - 0.01
    assert give() == b"1"
    clock[0] = FRESH_S
    assert give() == b"2"
    assert made == [0.0, FRESH_S]


def test_pressure_and_kills_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    pressure, vmstat = tmp_path / "memory", tmp_path / "vmstat"
    pressure.write_text("some avg10=1.50 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")
    vmstat.write_text("nr_free_pages 1\noom_kill 4\n")
    text = render([*guest.of_pressure(str(pressure)), *guest.of_memory_kills(str(vmstat))])
    assert value(text, "nvrc_guest_memory_pressure_ratio", tasks="some") == 0.015
    assert value(text, "nvrc_guest_memory_pressure_seconds_total", tasks="some") == 2.5
    assert value(text, "nvrc_guest_oom_kills_total") == 4
    assert list(guest.of_pressure(str(tmp_path / "none"))) == []


@pytest.mark.long
def test_this_machine_has_processes_memory_and_disks() -> None:
    text = render([*guest.of_guest(), *guest.of_disks(), *guest.of_services({"self": 1, "gone": 1 << 22}), *guest.of_self()])
    assert (value(text, "nvrc_guest_processes") or 0) > 1
    assert (value(text, "nvrc_guest_memory_bytes", kind="total") or 0) > 1 << 20
    assert (value(text, "nvrc_guest_disk_bytes", mount="/", kind="total") or 0) > 0
    assert (value(text, "nvrc_service_resident_bytes", service="self") or 0) > 0
    assert value(text, "nvrc_service_resident_bytes", service="gone") is None


@pytest.mark.parametrize("words", [[], ["--port"], ["--port", "http"], ["--gpus"], ["--port", "1", "--colour", "red"]], ids=" ".join)
def test_other_words_than_those_of_pid_1_are_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("usage: nvrc-metrics --port PORT")
