# SPDX-License-Identifier: Apache-2.0
"""The report and the live status: written by our own encoder, read strictly, documented field by field."""

from __future__ import annotations

import json
import re
import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.records import records
from guest_cdi.lean.light import Enum
from nvrc.hardware.topology import PciFunction, classify
from nvrc.report import report, status
from nvrc.report.findings import CdiRecord, ConfidentialRecord, MigRecord, ReadyRecord, SettingRecord
from nvrc.report.links import PairRecord, PlaceRecord
from nvrc.report.networks import FabricRecord, NicRecord, PortRecord
from nvrc.report.report import (
    FunctionRecord,
    Outcome,
    ParameterRecord,
    Report,
    Role,
    SpanRecord,
    StepRecord,
    Verdict,
    record_topology,
)
from nvrc.report.status import ServiceRecord, ServiceState, Status, XidRecord
from nvrc.report.troubles import list_troubles
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.jsonread import FormatError, decode
from nvrc.vocabulary.jsontext import encode, encode_line
from nvrc.vocabulary.trouble import Trouble

PAGE = Path(__file__).parents[3] / "docs" / "boot-report.md"
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
REPORTS = records(
    Report, program=st.text(), verdict=st.sampled_from(tuple(Verdict)), started_s=FLOATS, interpreter_s=st.none() | FLOATS,
    ended_s=st.none() | FLOATS, failure=st.none() | records(Trouble),
    steps=st.lists(records(StepRecord, start_s=st.none() | FLOATS, end_s=st.none() | FLOATS), max_size=3).map(tuple),
    parameters=st.lists(records(ParameterRecord), max_size=3).map(tuple),
    topology=st.lists(records(FunctionRecord), max_size=3).map(tuple),
    gpus=st.lists(records(GpuRecord, seconds=st.none() | FLOATS), max_size=3).map(tuple),
    settings=st.lists(records(SettingRecord), max_size=2).map(tuple), mig=st.lists(records(MigRecord), max_size=2).map(tuple),
    confidential=st.none() | records(ConfidentialRecord), cdi=st.none() | records(CdiRecord), ready=st.none() | records(ReadyRecord),
    places=st.lists(records(PlaceRecord), max_size=2).map(tuple), pairs=st.lists(records(PairRecord), max_size=2).map(tuple),
    fabric=st.lists(records(FabricRecord), max_size=2).map(tuple),
    nics=st.lists(records(NicRecord, ports=st.lists(records(PortRecord), max_size=2).map(tuple)), max_size=2).map(tuple),
    policy=st.text(), troubles=st.lists(records(Trouble), max_size=2).map(tuple),
    log=st.lists(st.text(), max_size=3).map(tuple))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))

MINIMAL = Report(program="0.1.0", started_s=0.5)


@pytest.mark.long
@given(JSON)
def test_encoder_agrees_with_the_standard_library(value: object) -> None:
    text, line = encode(value), encode_line(value)
    assert text.isascii() and line.isascii()
    assert json.loads(line) == value
    assert json.dumps(json.loads(line)) == json.dumps(value)
    assert json.dumps(json.loads(text)) == json.dumps(with_nulls(value))


def with_nulls(value: object) -> object:
    """What is unset is null in a document; an empty item of a list is an item."""
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if item == "" else with_nulls(item) for item in value]
    return None if value == "" else value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_encoder_refuses_what_is_no_json_number(value: float) -> None:
    with pytest.raises(ValueError, match="is not a JSON number"):
        encode((value,))


def test_encoder_refuses_unknown_types() -> None:
    with pytest.raises(TypeError, match="no JSON form for set"):
        encode({"a": {1}})


def test_layout_is_one_line_per_field_and_item() -> None:
    value = Report(program="0.1.0", started_s=0.5, steps=(StepRecord(name="a"), StepRecord(name="b")))
    lines = encode(value).decode().splitlines()
    assert lines[:4] == ["{", '  "schema": 2,', '  "program": "0.1.0",', '  "verdict": "booting",']
    assert ('    {"name": "a", "outcome": "pending", "start_s": null, "end_s": null, "waited_s": null, "detail": null, '
            '"code": null},' in lines)


@pytest.mark.long
@given(REPORTS)
def test_report_reads_back(value: Report) -> None:
    assert report.from_json(report.to_json(value)) == value


@given(records(
    Status, program=st.text(), verdict=st.sampled_from(tuple(Verdict)), updated_s=FLOATS,
    services=st.lists(records(ServiceRecord, since_s=FLOATS, pid=st.none() | st.integers()), max_size=3).map(tuple)))
def test_status_reads_back(value: Status) -> None:
    assert status.from_json(status.to_json(value)) == value


def altered(**changes: object) -> bytes:
    document = json.loads(report.to_json(MINIMAL))
    for name, value in changes.items():
        document[name] = value
    return json.dumps(document).encode()


def without(name: str) -> bytes:
    document = json.loads(report.to_json(MINIMAL))
    del document[name]
    return json.dumps(document).encode()


STEP = {"name": "a", "outcome": "ok", "start_s": 1, "end_s": None, "waited_s": 0.5, "detail": "", "code": ""}


@pytest.mark.parametrize(("data", "problems"), [
    pytest.param(b"", ("not JSON: Expecting value: line 1 column 1 (char 0)",), id="empty"),
    pytest.param(b"\xff{}", ("byte 0: not UTF-8, so not JSON",), id="bytes"),
    pytest.param(b"[]", ("document: expected an object, not []",), id="list"),
    pytest.param(b'{"schema": NaN}', ("NaN is not a JSON number",), id="nan"),
    pytest.param(b'{"a": 1, "b": 2, "a": 3}', ("duplicate key 'a'",), id="duplicate"),
    pytest.param(altered(schema=3), ("schema 3: this program reads schema 1 and 2 only",), id="newer"),
    pytest.param(altered(schema="1"), ('schema: expected a whole number, not "1"',), id="schema-type"),
    pytest.param(altered(extra=1), ("extra: unknown key",), id="unknown-key"),
    pytest.param(without("steps"), ("steps: missing",), id="missing-key"),
    pytest.param(altered(started_s="now", mode=1, gpus={}),
                 ("mode: expected a string, not 1", 'started_s: expected a number, not "now"',
                  "gpus: expected a list, not {}"), id="all-at-once"),
    pytest.param(altered(verdict="maybe"),
                 ('verdict: expected one of booting, ready, no-gpu, degraded, failed, not "maybe"',), id="enum"),
    pytest.param(altered(steps=[STEP, {**STEP, "outcome": 1, "end_s": True}]),
                 ("steps[1].outcome: expected one of ok, skip, fail, warn, running, pending, not 1",
                  "steps[1].end_s: expected a number, not true"), id="nested"),
    pytest.param(altered(failure={"code": "E_X", "step": "a", "what": ["x" * 100]}),
                 ("failure.hint: missing", "failure.gpu: missing", "failure.uuid: missing", "failure.service: missing",
                  "failure.path: missing", f'failure.what: expected a string, not ["{"x" * 55}...'), id="long-value"),
    pytest.param(altered(log=["a", 1]), ("log[1]: expected a string, not 1",), id="list-item"),
    pytest.param(altered(started_s=10 ** 400), ("started_s: number out of range",), id="huge-integer"),
    pytest.param(altered().replace(b"0.5", b"1e999"), ("started_s: number out of range",), id="huge-float"),
])
def test_reader_names_every_problem(data: bytes, problems: tuple[str, ...]) -> None:
    with pytest.raises(FormatError) as caught:
        report.from_json(data)
    assert caught.value.problems == problems


def test_deep_nesting_is_no_json() -> None:
    with pytest.raises(FormatError, match="not JSON"):
        report.from_json(b"[" * 100_000)


@pytest.mark.long
def test_a_value_that_is_nested_too_deeply_to_be_shown_is_a_finding() -> None:
    """What reads JSON goes deeper than what writes it; where either ends depends on who has called."""
    for depth in range(800, 1000):
        with pytest.raises(FormatError):
            report.from_json(b'{"schema":2,"steps":[{"name":' + b"[" * depth + b"]" * depth + b"}]}")


@pytest.mark.parametrize("data", [
    pytest.param(b'{"schema": 2, %s}', id="document"), pytest.param(b'{"schema": 2, "ready": {%s}}', id="record"),
])
@pytest.mark.long
def test_keys_take_no_square_of_time(data: bytes) -> None:
    """Whoever reads a status over vsock reads what a hostile guest has written: 16 MiB took a day."""
    keys = b", ".join(b'"k%d": 0' % number for number in range(30_000))
    started = time.process_time()
    with pytest.raises(FormatError):
        report.from_json(data % keys)
    assert time.process_time() - started < 5


def test_types_that_nobody_can_read_are_a_programming_error() -> None:
    with pytest.raises(TypeError, match="no way to read"):
        decode(bytes, b"{}", 1)


OLD = {
    "schema": 1, "program": "nvrc 0.1.0", "verdict": "degraded", "mode": "gpu", "failure": None, "started_s": 1.0,
    "interpreter_s": None, "ended_s": 3.0, "cpu_s": None, "resident_kib": None, "steps": [], "beside": [], "parameters": [],
    "topology": [], "gpus": [{"bdf": "0000:41:00.0", "uuid": "", "state": "failed", "code": "E_GPU_ATTACH", "seconds": None}],
    "notes": ["a note"], "warnings": ["nvrc.x: unknown", "E_GPU_ATTACH GPU 0000:41:00.0 failed to attach"], "log": ["words"]}
OLD_FAILURE = {"code": "E_MOUNT", "step": "filesystems", "what": "/sys: busy", "hint": "mend it"}


def test_a_report_of_schema_1_is_read_as_what_it_says() -> None:
    found = report.from_json(json.dumps(OLD).encode())
    assert (found.schema, found.mode, found.ended_s, found.log, found.cdi) == (2, "gpu", 3.0, ("words",), None)
    assert found.notes == ("a note", "nvrc.x: unknown")
    assert [(one.code, one.step, one.what, one.gpu) for one in found.troubles] == [
        ("E_GPU_ATTACH", "persistenced", "GPU 0000:41:00.0 failed to attach", "0000:41:00.0")]
    assert list_troubles(found.steps, found.gpus, told=found.troubles) == found.troubles
    checked = {**STEP, "name": "cc-check", "detail": "on"}
    assert found.confidential is None
    assert report.from_json(json.dumps({**OLD, "steps": [STEP, checked]}).encode()).confidential == ConfidentialRecord(
        mode="on", why="step cc-check")
    failed = report.from_json(json.dumps({**OLD, "failure": OLD_FAILURE}).encode())
    assert failed.failure == Trouble(**OLD_FAILURE)


def test_a_status_of_schema_1_is_read_as_what_it_says() -> None:
    names = ("program", "verdict", "mode", "resident_kib", "gpus", "warnings")
    old = {"schema": 1, **{name: OLD[name] for name in names}, "updated_s": 9.0, "failure": None, "degraded_by": [OLD_FAILURE],
           "services": [], "orphans_reaped": 3, "log_messages": 2, "log_dropped": 1}
    found = status.from_json(json.dumps(old).encode())
    assert (found.schema, found.degraded_by, found.notes) == (2, (Trouble(**OLD_FAILURE),), ("nvrc.x: unknown",))
    assert [one.code for one in found.troubles] == ["E_GPU_ATTACH"]


@pytest.mark.parametrize(("changes", "problems"), [
    ({"warnings": "x"}, ("warnings: unknown key", "troubles: missing")),
    ({"failure": {"code": "E_X"}}, ("failure.step: missing", "failure.what: missing", "failure.hint: missing", "failure.gpu: missing",
                                    "failure.uuid: missing", "failure.service: missing", "failure.path: missing")),
    ({"failure": 1}, ("failure: expected an object, not 1",)), ({"extra": 1}, ("extra: unknown key",)),
    ({"log": [1]}, ("log[0]: expected a string, not 1",)),
])
def test_a_report_of_schema_1_is_read_as_strictly(changes: dict[str, object], problems: tuple[str, ...]) -> None:
    with pytest.raises(FormatError) as caught:
        report.from_json(json.dumps({**OLD, **changes}).encode())
    assert caught.value.problems == problems


@given(JSON, st.sampled_from(sorted(OLD)))
def test_any_value_of_a_field_of_schema_1_gives_a_report_or_the_declared_error(value: object, name: str) -> None:
    try:
        found = report.from_json(json.dumps({**OLD, name: value}).encode())
    except FormatError:
        return
    assert report.from_json(report.to_json(found)) == found


@given(st.binary())
def test_any_bytes_give_a_report_or_the_declared_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        report.from_json(data)


@given(JSON, st.sampled_from([field.name for field in fields(Report)]))
def test_any_value_of_a_field_gives_a_report_or_the_declared_error(value: object, name: str) -> None:
    try:
        found = report.from_json(altered(**{name: value}))
    except FormatError as error:
        assert all(problem.startswith(name) for problem in error.problems)
    else:
        assert report.from_json(report.to_json(found)) == found


def test_topology_record_keeps_every_function() -> None:
    functions = (PciFunction(bdf="0000:41:00.0", vendor=0x10DE, device=0x2330, pci_class=0x030200),
                 PciFunction(bdf="0000:00:01.0", vendor=0x1234, device=0x1, pci_class=0x030000),
                 PciFunction(bdf="0000:51:00.0", vendor=0x15B3, device=0x1021, pci_class=0x20700,
                             manages_switches=True),
                 PciFunction(bdf="0000:52:00.0", vendor=0x15B3, device=0x101E, pci_class=0x20000),
                 PciFunction(bdf="0000:61:00.0", vendor=0x10DE, device=0x22A3, pci_class=0x068000))
    assert [(f.bdf, f.ids, f.pci_class, f.role) for f in record_topology(classify(functions))] == [
        ("0000:41:00.0", "10de:2330", "030200", Role.GPU), ("0000:61:00.0", "10de:22a3", "068000", Role.NVSWITCH),
        ("0000:51:00.0", "15b3:1021", "020700", Role.MANAGEMENT_NIC), ("0000:52:00.0", "15b3:101e", "020000", Role.NIC),
        ("0000:00:01.0", "1234:0001", "030000", Role.OTHER)]


def documented(heading: str) -> list[str]:
    """Names in the first column of the table below a heading of the page."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z_0-9]+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("record", [Report, StepRecord, ParameterRecord, FunctionRecord, GpuRecord, Trouble, Status,
                                    ServiceRecord, XidRecord, SpanRecord, SettingRecord, MigRecord, ConfidentialRecord,
                                    CdiRecord, ReadyRecord, NicRecord, PortRecord, FabricRecord, PlaceRecord, PairRecord], ids=lambda record: record.__name__)
def test_the_page_lists_every_field_in_order(record: type) -> None:
    assert is_dataclass(record)
    assert documented(record.__name__) == [field.name for field in fields(record)]


@pytest.mark.parametrize("words", [Outcome, Verdict, GpuState, Role, ServiceState], ids=lambda words: words.__name__)
def test_the_page_lists_every_word(words: type[Enum]) -> None:
    listed = re.search(rf"^- {words.__name__}: (.*)$", PAGE.read_text(), re.MULTILINE)
    assert listed is not None
    assert re.findall(r"`([^`]+)`", listed[1]) == [word.value for word in words]


def test_hints_resolve_without_a_type_checker() -> None:
    assert get_type_hints(Report)["failure"] == Trouble | None
