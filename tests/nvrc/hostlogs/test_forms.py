# SPDX-License-Identifier: Apache-2.0
"""One failed VM in every form that hosts, log stores and people hand on: the same diagnosis from each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import textwrap
from pathlib import Path

import pytest
import yaml

from fakes.trouble import fatal_line
from nvrc.commands.doctor import diagnose as diagnose_file
from nvrc.commands.doctor import diagnose_stream
from nvrc.report.diagnosis import State
from nvrc.vocabulary.console import step_line
from nvrc.vocabulary.errors import BY_CODE
from nvrc.vocabulary.jsonread import FormatError

ID = "4f2a" + "9c1d" * 15
WHAT, HINT = "1 of 2 GPUs attached; GPU 0000:41:00.0 failed to attach", "reset it from the host before the VM starts again"
CONSOLE = ["[    0.000000] Linux version 6.12.117-cloud-amd64 (builder@host) #1 SMP", f"[    1.902113] {step_line('filesystems', 'ok', 0.012)}",
           "[    9.310020] NVRM: GPU 0000:41:00.0: RmInitAdapter failed! (0x22:0x56:897)",
           f"[    9.501000] {fatal_line('E_GPU_ATTACH', 'persistenced', WHAT, HINT)}"]
REFUSAL = f"guest init: E_GPU_ATTACH in step persistenced: {WHAT} (hint: {HINT})"
CAUSE = f"Failed to Check if grpc server is working: rpc error: code = FailedPrecondition desc = {REFUSAL}"
REMEDY = BY_CODE["E_GPU_ATTACH"].remedy
EVENT = (f'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to start sandbox "{ID}": failed to create containerd '
         f"task: failed to create shim task: {CAUSE}: unknown")


def quoted(text: str) -> str:
    """As Go's %q writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


SHIM = [f'time="2026-11-20T10:14:02.1+01:00" level=debug msg="reading guest console" console-protocol=unix pid=10764 sandbox={ID} '
        f"source=virtcontainers subsystem=sandbox vmconsole={quoted(line)}" for line in CONSOLE]
CRIO = (f'time="2026-11-20 10:14:22.123456789Z" level=error msg={quoted("CreateContainer failed: " + CAUSE)} '
        "id=5d1c0000-0000-4000-8000-000000000001 name=/runtime.v1.RuntimeService/RunPodSandbox")
DESCRIBED = f"  Warning  FailedCreatePodSandBox  12s (x3 over 80s)  kubelet  {EVENT}"


def each(form: str) -> list[str]:
    return [form.format(line) for line in SHIM]


def cut_at(width: int, lines: list[str]) -> list[str]:
    return [line[at:at + width] for line in lines for at in range(0, len(line), width)]


def pretty(value: object, indent: int | str = 2) -> list[str]:
    return json.dumps(value, indent=indent).split("\n")


def table() -> list[str]:
    text = io.StringIO()
    csv.writer(text).writerows([("Time", "Line"), *(("2026-11-20 10:14:22", line) for line in SHIM)])
    return text.getvalue().split("\n")


RECORDS = [{"MESSAGE": line, "_PID": "99"} for line in SHIM]
OBJECT = {"apiVersion": "v1", "items": [{"kind": "Event", "message": EVENT, "reason": "FailedCreatePodSandBox"}], "kind": "List"}
TERMINATED = {"status": {"containerStatuses": [{"lastState": {"terminated": {"message": f"{REFUSAL}\n", "reason": "Error"}}}]}}
FORMS = {
    # The journal, in what journalctl -o offers beside the samples.
    "json-seq": ["\x1e" + json.dumps(one) for one in RECORDS], "json-sse": [text for one in RECORDS for text in (f"data: {json.dumps(one)}", "")],
    "json-pretty": [text for one in RECORDS for text in pretty(one, "\t")], "json-in-a-list": pretty(RECORDS), "json-list-in-a-line": [json.dumps(RECORDS)],
    "json-of-bytes": [json.dumps({"MESSAGE": list(line.encode())}) for line in SHIM],
    "verbose": [text for line in SHIM for text in ("Fri 2026-11-20 10:14:02.123456 CET [s=1;i=2]", "    _PID=99", f"    MESSAGE={line}")],
    "with-unit": each("Fri 2026-11-20 10:14:02 CET node-7 containerd.service[99]: {}"), "short-delta": each("[   12.345678 <    0.000100 >] node-7 kata[99]: {}"),
    "cat": SHIM, "windows-line-ends": [f"{line}\r" for line in SHIM],
    # CRI-O, kubelet, crictl, ctr.
    "crio": [CRIO], "crio-journal": [f"Nov 20 10:14:22.123456 node-7 crio[1234]: {CRIO}"],
    "crio-beside-the-shim": [*each("Nov 20 10:14:02 node-7 kata[99]: {}"), f"Nov 20 10:14:22 node-7 crio[1234]: {CRIO}"],
    "kubelet-json": [json.dumps({"ts": 1795166042.1, "caller": "kuberuntime_sandbox.go:72", "msg": "Failed to create sandbox for pod", "err": EVENT, "v": 0})],
    "crictl-runp": [f'E1120 10:14:22.123456 107 log.go:32] "RunPodSandbox from runtime service failed" err={quoted(EVENT)}', f"FATA[0020] run pod sandbox: {EVENT}"],
    "crictl-inspect": pretty({"status": {"id": ID, "state": "CONTAINER_EXITED", "exitCode": 137, "message": REFUSAL}}),
    "nerdctl": [f"FATA[0005] failed to create shim task: {CAUSE}"],
    # Events and pods.
    "events-table": ["LAST SEEN   TYPE      REASON                   OBJECT        MESSAGE", f"12s         Warning   FailedCreatePodSandBox   pod/train-0   {EVENT}"],
    "events-json": pretty(OBJECT, 4), "events-json-in-a-line": [json.dumps(OBJECT)], "events-yaml": yaml.safe_dump(OBJECT).split("\n"),
    "events-yaml-quoted": yaml.safe_dump(OBJECT, default_style='"').split("\n"), "events-yaml-literal": ["- kind: Event", "  message: |-", f"    {EVENT}", "  reason: x"],
    "events-yaml-folded": ["- kind: Event", "  message: >-", *(f"    {line}" for line in textwrap.wrap(EVENT, 80, break_on_hyphens=False)), "  reason: x"],
    "pod-yaml": yaml.safe_dump(TERMINATED).split("\n"), "pod-json": pretty(TERMINATED), "describe-cut-at-80": ["Events:", *cut_at(80, [DESCRIBED]), ""],
    "describe-wrapped": ["Events:", *textwrap.wrap(DESCRIBED, 100, initial_indent="  ", break_on_hyphens=False)], "describe-in-a-letter": [f"> > {DESCRIBED}"],
    "typographic-quotes": [DESCRIBED.replace('"', "\u201d")], "message-alone": [EVENT],
    # Log stores and collectors.
    "logcli": each('2026-11-20T10:14:22Z {{job="kata", node="node-7"}} {}'), "logcli-common-labels": ['Common labels: {job="kata"}', *each("2026-11-20T10:14:22+01:00 {{}} {}")],
    "logcli-jsonl": [json.dumps({"labels": {"a": "b"}, "line": line, "timestamp": "t"}) for line in SHIM],
    "loki-api": [json.dumps({"status": "success", "data": {"resultType": "streams", "result": [{"stream": {"job": "kata"}, "values": [["17951", line] for line in SHIM]}]}})],
    "grafana-json": pretty([{"line": line, "timestamp": "1", "fields": {"a": "b"}} for line in SHIM]), "grafana-csv": table(),
    "elastic-hits": [json.dumps({"hits": {"hits": [{"_source": {"message": line}} for line in SHIM]}})],
    "elastic-records": [json.dumps({"_index": "x", "_source": {"message": line}}) for line in SHIM],
    "fluent-bit": [f'[0] kata: [[1795166042.123, {{}}], {{"log"=>{quoted(line)}}}]' for line in SHIM],
    "fluentd-file": [f"2026-11-20T10:14:22+01:00\tkata\t{json.dumps({'message': line})}" for line in SHIM],
    "cloudwatch-tail": each("2026-11-20T10:14:22.123000+00:00 node-7/kata {}"), "cloudwatch-events": pretty({"events": [{"timestamp": 1, "message": line} for line in SHIM]}),
    "gcloud-json": pretty([{"jsonPayload": {"MESSAGE": line}, "timestamp": "t"} for line in SHIM]), "stern": each("kata-deploy-x kata {}"),
    "kubectl-logs-prefix": each("[pod/kata-deploy-x/kata] {}"), "rsyslog": each("2026-11-20T10:14:22.123456+01:00 node-7 kata[99]: {}"), "letter": each("> {}"),
    "the-first-time-is-cut": [line[20:] for line in SHIM],
    # Consoles.
    "dmesg-T": [f"[Fri Nov 20 10:14:22 2026] {line.partition('] ')[2]}" for line in CONSOLE], "ts": [f"Nov 20 10:14:22 {line}" for line in CONSOLE],
    "clock": [f"10:14:22 {line}" for line in CONSOLE], "clock-in-brackets": [f"[10:14:22.123] {line}" for line in CONSOLE],
    "seconds": [f"1795166042 {line}" for line in CONSOLE], "terminal": [f"\x1b[K\x1b[?25l{line}\r\r" for line in CONSOLE], "cut-at-80": cut_at(80, CONSOLE),
    "virsh-console": ["Connected to domain 'kata'", "Escape character is ^] (Ctrl + ])", *(f"\x1b(B\x1b[m{line}" for line in CONSOLE)],
}


def diagnose(lines: list[str]) -> dict[str, tuple[State, str, str, str]]:
    found = diagnose_stream("log", io.BytesIO(("\n".join(lines) + "\n").encode()))
    return {one.sandbox: (one.state, one.summary, one.failure.what if one.failure else "", one.failure.hint if one.failure else "") for one in found}


@pytest.mark.parametrize("lines", FORMS.values(), ids=FORMS)
def test_the_same_diagnosis_from_every_form(lines: list[str]) -> None:
    found = diagnose(lines)
    assert list(found.values()) == [(State.FAILED, "E_GPU_ATTACH in step persistenced", WHAT, HINT)]
    assert set(found) <= {ID, ""}
    if any("sandbox=" in line for line in lines):
        assert set(found) == {ID}


def test_redirected_by_a_shell_of_another_system() -> None:
    (found,) = diagnose_stream("log", io.BytesIO("\r\n".join(SHIM).encode("utf-16")))
    assert (found.sandbox, found.summary) == (ID, "E_GPU_ATTACH in step persistenced")


def test_a_log_that_was_packed_when_it_was_rotated(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join(SHIM[:2]).encode() + b"\n") + gzip.compress("\n".join(SHIM[2:]).encode())
    (tmp_path / "kata.log.2.gz").write_bytes(packed)
    (found,) = diagnose_file(str(tmp_path / "kata.log.2.gz"))
    assert (found.sandbox, found.summary) == (ID, "E_GPU_ATTACH in step persistenced")


@pytest.mark.parametrize("packed", [gzip.compress(b"x" * 99)[:-4], gzip.compress(b"x")[:12] + b"\xff" * 20, b"\x1f\x8b\x00"], ids=["cut", "bad", "short"])
def test_a_packed_log_that_cannot_be_unpacked_is_named(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "log.gz").write_bytes(packed)
    with pytest.raises(FormatError, match=r"log\.gz: its gzip stream is damaged or cut off: "):
        diagnose_file(str(tmp_path / "log.gz"))


@pytest.mark.parametrize(("lines", "what", "remedy"), [
    pytest.param([*SHIM[:3], SHIM[3][:-70]], "1 of 2 GPUs attached; GPU 0000:41:00.0 failed t", REMEDY, id="a-line-of-the-shim"),
    pytest.param([*CONSOLE[:3], CONSOLE[3][:90]], "1 of 2 GPUs ", REMEDY, id="a-line-of-the-console"),
    pytest.param([*CONSOLE[:3], CONSOLE[3][:62]], BY_CODE["E_GPU_ATTACH"].meaning, REMEDY, id="before-the-sentence"),
    pytest.param([f"{DESCRIBED[:430]}..."], WHAT[:16], REMEDY, id="an-event"),
])
def test_what_a_copy_has_cut_is_told_from_what_is_left(lines: list[str], what: str, remedy: str) -> None:
    (found,) = diagnose_stream("log", io.BytesIO("\n".join(lines).encode()))
    assert (found.state, found.summary, found.who) == (State.FAILED, "E_GPU_ATTACH in step persistenced", "node operator")
    assert found.failure is not None
    assert found.failure.what.startswith(what)
    assert remedy in (found.failure.hint or found.remedy)


@pytest.mark.parametrize("lines", [
    pytest.param(pretty({"status": {"id": ID, "state": "SANDBOX_NOTREADY"}, "info": {"runtimeType": "io.containerd.kata.v2"}}), id="crictl-inspectp"),
    pytest.param(["{", "}"], id="an-object"), pytest.param(["[]"], id="a-list"), pytest.param(['{"a": [', "lorem"], id="broken"),
])
def test_json_without_a_word_of_a_failure_says_what_is_read(lines: list[str]) -> None:
    with pytest.raises(FormatError, match="nothing in it is known; doctor reads a VM's console"):
        diagnose(lines)


def test_lines_of_others_are_not_taken_for_the_end_of_a_cut_sentence() -> None:
    begun = CONSOLE[3][:100]
    for other in ("[    9.6] next", "nvrc: END code=OK", "Nov 20 10:14:22 node-7 x", "  Normal  Pulled  1s"):
        found = diagnose([*CONSOLE[:3], begun, other])
        assert [row[2] for row in found.values()] == ["1 of 2 GPUs attached; GPU 0000:"]
