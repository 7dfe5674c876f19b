# SPDX-License-Identifier: Apache-2.0
"""Wrappings of hosts' logs, bounds, and what hostile lines cannot do."""

from __future__ import annotations

import io
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakes.cases import Case
from fakes.trouble import fatal_line, trouble
from nvrc.commands.doctor import diagnose_stream, show
from nvrc.hostlogs import collect as collecting
from nvrc.hostlogs import documents
from nvrc.hostlogs.collect import collect
from nvrc.hostlogs.events import HOST_SIGNS, find_sign
from nvrc.hostlogs.lines import CHUNK, LINE_LIMIT, mark, split_lines, unfold
from nvrc.hostlogs.unwrap import Said, Speaker, unwrap
from nvrc.report.diagnosis import State, diagnose_report
from nvrc.report.report import Report
from nvrc.report.story import MOST_WARNINGS
from nvrc.vocabulary.console import refusal, step_line, verdict_ready, warning_line
from nvrc.vocabulary.errors import BY_CODE, CODES, make_trouble
from nvrc.vocabulary.records import FormatError
from nvrc.vocabulary.terminal import fold, width_of
from nvrc.vocabulary.transcript import read_refusal
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble
from nvrc.vocabulary.verdict import Verdict

ID = "ab" * 32
READY = verdict_ready(1.2, "gpu", 8, 9, 87)
FATAL = fatal_line("E_TOPOLOGY", "topology", 'a "quoted" \\ cause', "do")


def shim(text: str, sandbox: str = ID) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'time="2026-11-20T10:00:00Z" level=debug msg="reading guest console" sandbox={sandbox} vmconsole="{quoted}"'


@pytest.mark.parametrize(("line", "expected"), [
    pytest.param("[ 1.0] plain", Said("[ 1.0] plain", Speaker.PLAIN), id="plain"),
    pytest.param(shim(FATAL), Said(FATAL, Speaker.CONSOLE, ID), id="quoted-as-go-does"),
    pytest.param(shim("\\x1b[2J").replace("\\\\x1b", "\\x1b"), Said("\x1b[2J", Speaker.CONSOLE, ID), id="escapes"),
    pytest.param("Nov 20 10:00:00 node kata[7]: " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="journal"),
    pytest.param("2026-11-20 10:00:00,123 [ 1.0] x", Said("[ 1.0] x", Speaker.PLAIN), id="a-copy-with-stamps"),
    pytest.param("2026-11-20T10:00:00Z nvrc: warn x", Said("nvrc: warn x", Speaker.PLAIN), id="our-prefix-is-no-program"),
    pytest.param("2026-11-20T10:00:00.1Z stderr F x", Said("x", Speaker.PLAIN), id="cri"),
    pytest.param('{"log":"x\\n","stream":"stdout"}', Said("x", Speaker.HOST), id="docker"),
    pytest.param('{"msg":"m","level":"ERRO","name":"kata-agent"}', Said("m", Speaker.AGENT, "", True), id="agent"),
    pytest.param('{"msg":"m","error":"e","level":"error"}', Said("m: e", Speaker.HOST, "", True), id="error-in-a-field"),
    pytest.param('level=error msg="failed to start sandbox \\"' + ID + '\\": x"',
                 Said(f'failed to start sandbox "{ID}": x', Speaker.HOST, ID, True), id="id-in-words"),
    pytest.param(f'    "message": "sandbox \\"{ID}\\" x",', Said(f'sandbox "{ID}" x', Speaker.HOST, ID), id="json-member"),
    pytest.param("  message: 'it''s'", Said("it's", Speaker.HOST), id="yaml-member"),
    pytest.param("Fri 2026-11-20 10:00:00 CET node kata[7]: " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="short-full"),
    pytest.param("[ 4711.123456] node kata[7]: " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="short-monotonic"),
    pytest.param("1795166042.123456 node kata[7]: " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="short-unix"),
    pytest.param("[    9.310020] NVRM: GPU x: y", Said("[    9.310020] NVRM: GPU x: y", Speaker.PLAIN), id="the-kernels-time"),
    pytest.param("<30>Nov 20 10:00:00 node kata[7]: " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="syslog-3164"),
    pytest.param("<30>1 2026-11-20T10:00:00Z node kata 7 - - " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="syslog-5424"),
    pytest.param("    MESSAGE=" + shim("x"), Said("x", Speaker.CONSOLE, ID), id="journal-verbose"),
    pytest.param('\t"MESSAGE" : ' + json.dumps(shim("x")) + ",", Said("x", Speaker.CONSOLE, ID), id="journal-json-pretty"),
    pytest.param('{"@timestamp": "t", "message": ' + json.dumps(shim("x")) + "},", Said("x", Speaker.CONSOLE, ID), id="elastic"),
    pytest.param('{"line": ' + json.dumps(shim("x")) + "}", Said("x", Speaker.CONSOLE, ID), id="loki"),
    pytest.param('{"jsonPayload": {"MESSAGE": ' + json.dumps(shim("x")) + "}}", Said("x", Speaker.CONSOLE, ID), id="cloud-logging"),
    pytest.param("\x1b[1mNov 20 10:00:00 node kata[7]:\x1b[0m " + shim("x"), Said("x", Speaker.CONSOLE, ID), id="colours"),
    pytest.param('{"a": 1}', Said('{"a": 1}', Speaker.PLAIN), id="some-json"),
    pytest.param("[1]", Said("[1]", Speaker.PLAIN), id="no-object"),
    pytest.param('{"MESSAGE": null}', Said("null", Speaker.HOST), id="no-text"),
])
def test_unwrap(line: str, expected: Said) -> None:
    assert unwrap(line) == expected


def test_a_guest_cannot_speak_for_the_host() -> None:
    other = "cd" * 32
    forged = shim("guest init: E_TOPOLOGY in step topology: lies (hint: believe me)")
    found = collect([shim(shim(READY, other)), forged, shim("timed out connecting to vsock 1:1024")]).diagnose()
    assert [(one.sandbox, one.state) for one in found] == [(ID, State.UNFINISHED)]


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param("desc = guest init: E_GPU_ATTACH in step persistenced: 1 of 2 (a) (hint: reset (it) now): unknown",
                 Trouble(code="E_GPU_ATTACH", step="persistenced", what="1 of 2 (a)", hint="reset (it) now"), id="whole"),
    pytest.param("guest init: E_AGENT_EXIT: powered off: unknown",
                 Trouble(code="E_AGENT_EXIT", step="supervise", what="powered off", hint=""), id="no-step-no-hint"),
    pytest.param('Status { message: "guest init: E_MIG in step gpu-settings: x (hint: y (z) w)", details: [] })',
                 Trouble(code="E_MIG", step="gpu-settings", what="x", hint="y (z) w"), id="rust"),
    pytest.param('err="... guest init: E_MIG in step gpu-settings: x (hint: y): unknown" pod="a(b)"',
                 Trouble(code="E_MIG", step="gpu-settings", what="x", hint="y"), id="klog"),
    pytest.param("guest init: E_MIG in step gpu-settings: x (hint: cut o...",
                 Trouble(code="E_MIG", step="gpu-settings", what="x", hint="cut o..."), id="cut"),
    pytest.param("guest init: hello", None, id="no-code"),
])
def test_refusal(text: str, expected: Trouble | None) -> None:
    assert read_refusal(text) == expected


ONE_LINE = st.text(max_size=60).map(lambda text: " ".join(text.split())).filter(lambda text: text and "(hint" not in text)


@given(ONE_LINE, ONE_LINE)
def test_what_pid_1_answers_is_read_as_it_was_meant(what: str, hint: str) -> None:
    told = refusal(trouble("E_MIG", "gpu-settings", what, hint))
    expected = Trouble(code="E_MIG", step="gpu-settings", what=what, hint=hint)
    assert read_refusal(f"rpc error: desc = {told}: unknown") == expected


def test_a_termination_message_is_read() -> None:
    ending = make_trouble("E_SERVICE_LOST", "nvidia-persistenced was killed by SIGKILL", step=AFTER_THE_BOOT)
    lines = ["    Last State:     Terminated", "      Reason:       Error", f"      Message:      {refusal(ending)}", "Events:          <none>"]
    (found,) = collect(lines).diagnose()
    assert found.failure is not None
    assert (found.summary, found.failure.what) == ("E_SERVICE_LOST after the boot", ending.what)


def test_each_row_of_hosts_words_can_be_reached() -> None:
    assert [find_sign(" ... ".join(row.words)) for row in HOST_SIGNS] == list(HOST_SIGNS)
    assert read_refusal("nothing") is None


def test_a_verdict_of_the_console_beats_the_hosts_words() -> None:
    lines = [shim(FATAL), f'level=error msg="sandbox \\"{ID}\\": timed out connecting to vsock 1:1024"']
    (found,) = collect(lines).diagnose()
    assert found.summary == "E_TOPOLOGY in step topology"


def test_a_host_that_gave_up_on_a_vm_that_hangs_says_where() -> None:
    lines = [shim(step_line("journal", "ok", 0.1)), f'level=error msg="sandbox \\"{ID}\\": timed out connecting to vsock 1:1024"']
    (found,) = collect(lines).diagnose()
    assert found.state is State.FAILED
    assert "the last step that finished is journal" in found.summary


def test_a_container_that_fails_in_a_vm_that_is_ready() -> None:
    lines = [shim(READY), f'level=error msg="sandbox \\"{ID}\\": failed to inject devices after CDI timeout"']
    (found,) = collect(lines).diagnose()
    assert (found.state, found.who) == (State.FAILED, "image owner")


NVRM = ("NVRM: RmInitAdapter failed! (0x22:0x56:897)", fatal_line("E_GPU_ATTACH", "persistenced", "1 of 2", "reset"))


@pytest.mark.parametrize(("said", "cause"), [
    pytest.param([], "if the GPU is in confidential mode: a confidential GPU attaches once", id="nobody-knows"),
    pytest.param([step_line("cc-check", "ok", 0.1, "on")], "a confidential GPU attaches once", id="confidential"),
    pytest.param([step_line("cc-check", "ok", 0.1, "off")], "the driver could not initialise the GPU", id="not-confidential"),
])
def test_causes_are_hedged_by_what_the_machine_is(said: list[str], cause: str) -> None:
    (found,) = collect([*said, *NVRM]).diagnose()
    assert found.cause.startswith(cause)


def test_a_line_of_others_does_not_explain_a_failure_of_our_own() -> None:
    lines = ["NSCQ_RC_WARNING: RDT init failure", fatal_line("E_PARAMETERS", "parameters", "x", "y")]
    (found,) = collect(lines).diagnose()
    assert (found.cause, found.evidence) == (BY_CODE["E_PARAMETERS"].meaning, ())
    (found,) = collect([lines[0], fatal_line("E_SERVICE_LOST", "supervise", "x", "y")]).diagnose()
    assert found.evidence == (lines[0],)


def test_the_last_lines_of_a_report_are_evidence_too() -> None:
    failure = Trouble(code="E_GPU_ATTACH", step="persistenced", what="0 of 1", hint="reset")
    report = Report(program="nvrc", started_s=1.0, verdict=Verdict.FAILED, mode="gpu", failure=failure, log=NVRM[:1])
    assert diagnose_report(report).evidence == NVRM[:1]


@pytest.mark.parametrize(("mode", "cause"), [
    ("gpu: 1 GPU", "unusual in mode gpu, which runs no fabric: "), ("gpu-nvl4: 8 GPUs", "no NVSwitch is visible"),
    ("", "if the GPUs are linked by switches: ")])
def test_causes_of_the_fabric(mode: str, cause: str) -> None:
    steps = [step_line("topology", "ok", 0.1, mode)] if mode else []
    (found,) = collect([*steps, "NV_WARN_NOTHING_TO_DO", fatal_line("E_FABRIC_START", "fabric", "x", "y")]).diagnose()
    assert found.cause.startswith(cause)


def test_lines_are_those_of_a_text_however_it_comes_in_pieces() -> None:
    text = b"a\r\n\nb\x0cc\n\xff" + b"x" * (2 * CHUNK) + b"\nlast"
    lines = list(split_lines(io.BytesIO(text)))
    assert [lines[0], lines[1], lines[2], lines[4]] == ["a", "", "b\x0cc", "last"]
    assert len(lines[3].encode()) <= LINE_LIMIT + 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_marks_and_wide_characters_of_other_systems(encoding: str) -> None:
    text = "Events:\n" + "x" * CHUNK + "\nlast\n"
    assert list(split_lines(io.BytesIO(text.encode(encoding)))) == text.splitlines()


def test_a_message_that_yaml_spread_over_lines_is_one() -> None:
    lines = ["- kind: Event", "  message: 'a", "    b: c", "", "  reason: x", "  note: end"]
    assert list(unfold(lines)) == ["- kind: Event", "  message: 'a b: c", "", "  reason: x", "  note: end"]
    long = ["message: a", *[" x"] * 500]
    assert len(list(unfold(long))) > 1


def test_every_code_is_diagnosed_from_an_event_alone() -> None:
    for row in CODES:
        event = (f'  Warning  FailedCreatePodSandBox  12s  kubelet  Failed to create pod sandbox: rpc error: code = Unknown desc = failed to '
                 f'start sandbox "{ID}": failed to create containerd task: failed to create shim task: Failed to Check if grpc server is '
                 f'working: rpc error: code = FailedPrecondition desc = guest init: {row.code} in step {row.step}: {row.meaning} (hint: '
                 f'{row.remedy}): unknown')
        with Case(row.code):
            (found,) = collect([event]).diagnose()
            assert found.failure == Trouble(code=row.code, step=row.step, what=row.meaning, hint=row.remedy)
            assert (found.state, found.sandbox, found.who) == (State.FAILED, ID, row.who)
            text = "\n".join(show(found))
            assert text.count(row.meaning) == 1 and text.count(row.remedy) == 1, "no sentence twice"


def test_kubelets_own_log() -> None:
    line = ('Nov 20 10:14:22 node-7 kubelet[99]: E1120 10:14:22.123456      99 pod_workers.go:1301] "Error syncing pod, skipping" '
            f'err="failed to \\"CreatePodSandbox\\" for \\"train-0_ml(5d1c)\\" with CreatePodSandboxError: \\"rpc error: code = Unknown desc '
            f'= failed to start sandbox \\\\\\"{ID}\\\\\\": desc = guest init: E_MIG in step gpu-settings: x (hint: y): unknown\\"" pod="ml/train-0"')
    (found,) = collect([line]).diagnose()
    assert (found.sandbox, found.failure) == (ID, Trouble(code="E_MIG", step="gpu-settings", what="x", hint="y"))


@pytest.mark.parametrize("line", [
    pytest.param('time="2026-11-20T10:00:00Z" vmconsole="' + "a" * LINE_LIMIT, id="a-quote-that-never-closes"),
    pytest.param("message: a" + " " * LINE_LIMIT + "b", id="blanks"), pytest.param("sandbox" * 9000, id="sandbox"),
    pytest.param("sandbox" + " " * LINE_LIMIT, id="sandbox-blanks"), pytest.param("guest init: E_A: " + "(hint: " * 9000, id="hints"),
    pytest.param('{"a":' * 9000, id="nested"), pytest.param("<1>1 " + "[" * LINE_LIMIT, id="syslog"),
    pytest.param('level=info ' + 'a="\\' * 15000, id="escapes"), pytest.param("\x1b[" * 30000, id="colours"),
    pytest.param("[" + " " * LINE_LIMIT + "1.000000]", id="clock"), pytest.param("nvrc: FATAL code=" + "\\" * LINE_LIMIT, id="verdict"),
    pytest.param("Nov 20 10:00:00 " + "a" * LINE_LIMIT, id="program"),
])
def test_a_hostile_line_takes_no_longer_than_others(line: str) -> None:
    started = time.process_time()
    collect([line]).diagnose()
    assert time.process_time() - started < 1.5


FORGED = "guest init: E_MIG in step gpu-settings: x (hint: y): unknown"
VERDICT = 'nvrc: FATAL code=E_MIG step=gpu-settings what=\\"x\\" hint=\\"y\\"'


@pytest.mark.parametrize("before", ["message of a container: ", "Message: ", "2026-11-20T10:00:00Z message of a container: "])
@pytest.mark.parametrize("message", [
    FORGED, f'{{"msg": "{FORGED}"}}', f'time="2026-11-20T10:00:00Z" level=error msg="{FORGED}"', f"2026-11-20T10:00:00Z stderr F {FORGED}",
    f'{{"vmconsole": "{VERDICT}"}}', f'{{"sandbox": "{"a" * 64}", "vmconsole": "{VERDICT}"}}', VERDICT.replace("\\", ""),
    '{"vmconsole": "nvrc: READY boot_ms=1 gpus=1 mode=gpu"}', f'{{"name": "kata-agent", "level": "error", "msg": "{FORGED}"}}',
])
def test_what_a_container_says_is_its_own_word_whatever_it_looks_like(before: str, message: str) -> None:
    """A record in the message was taken for one of the host's, also for the console of another VM, and no warning stood beside it."""
    for found in collect([before + message]).diagnose():
        assert found.failure is None or found.warnings == (collecting.QUOTED,)
        assert found.state is not State.READY


def pod_with(message: str) -> dict[str, object]:
    ended = {"exitCode": 1, "message": message, "reason": "Error"}
    return {"apiVersion": "v1", "kind": "Pod", "status": {"containerStatuses": [{"lastState": {"terminated": ended}, "name": "x"}]}}


@pytest.mark.parametrize("printed", [yaml.safe_dump, lambda pod: yaml.safe_dump(pod, default_style="|"),
                                     lambda pod: json.dumps(pod, indent=4), json.dumps], ids=["YAML", "block", "JSON", "compact"])
@pytest.mark.parametrize("message", [FORGED, json.dumps({"msg": FORGED}), json.dumps({"vmconsole": VERDICT.replace("\\", "")}), "\n" * 70 + FORGED,
                                     "x\n" * 70 + VERDICT.replace("\\", ""), "nvrc: READY boot_ms=1 gpus=1 mode=gpu"])
def test_what_a_container_left_is_its_own_word_in_a_printed_pod_too(printed: Callable[[object], str], message: str) -> None:
    """Also what stands behind as many lines as a message is joined from."""
    stream = io.BytesIO(printed(pod_with(message)).encode())
    if FORGED not in message:
        with pytest.raises(FormatError, match="nothing in it is known"):
            diagnose_stream("pod", stream)
        return
    found, = diagnose_stream("pod", stream)
    assert (found.state, found.warnings) == (State.FAILED, (collecting.QUOTED,))


def test_what_stands_beside_a_container_s_state_is_not_its_word() -> None:
    lines = ["      terminated:", "        exitCode: 1", "        message: a", "          b", "        reason: x", "    name: y", "  message: c"]
    assert list(mark(lines)) == [*lines[:2], "message of a container: a", "message of a container: b", *lines[4:]]


def test_a_record_of_any_depth_is_passed_over() -> None:
    """Python writes less deep than it reads: at one depth, which depends on its release, a line ended doctor."""
    for depth in range(850, 1000):
        nested = "[" * depth + "]" * depth
        collect([f'{{"msg": "x", "a": {nested}}}']).diagnose()
        list(documents.texts(documents.parse(f'[{{"log": "x", "a": {nested}}}]'.encode())))


@pytest.mark.long
def test_memory_does_not_grow_with_the_log() -> None:
    def endless() -> Iterator[str]:
        for number in range(1_200):
            yield shim(warning_line(f"E_GPU_LOST GPU {number}"), f"{number % 500:064x}")
            yield f"[ 1.000000] NVRM: RmInitAdapter failed! {number}"
            yield step_line(f"s{number}", "ok", 1)

    collect(itertools.islice(endless(), 9))  # patterns are made once
    tracemalloc.start()
    collector = collect(endless())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 550_000  # about as much as the lines themselves: what is kept of each VM has a bound
    assert len(collector.names) <= collecting.MOST_SANDBOXES
    assert collector.left_out
    last = collector.diagnose()[-1]
    assert (last.state, last.summary.startswith(f"{collector.left_out} lines of other VMs were not read")) == (State.UNFINISHED, True)
    found = collect(warning_line(f"w{number}") for number in range(MOST_WARNINGS + 5)).diagnose()[0]
    assert (len(found.warnings), found.more_warnings) == (MOST_WARNINGS, 5)


def test_what_is_shown_is_printable_and_fits() -> None:
    lines = [shim("NVRM: \x1b]0;x\x07 GPU has fallen off the bus \u202e" + "y" * 900), shim(fatal_line("E_GPU_PROBE", "modules", "\x1b[2J", "z"))]
    (found,) = collect(lines).diagnose()
    for width in (30, 80):
        text = list(show(found, width))
        assert all(line.isascii() and line.isprintable() and len(line) <= width for line in text)
    assert "\\x1b" in " ".join(show(found))


def test_a_line_is_folded_below_its_first_word() -> None:
    assert list(fold("do", "one two three four five six", 30)) == ["  do       one two three four", "           five six"]
    assert list(fold("do", "one " * 100, 0)) == ["  do       " + "one " * 100]


@pytest.mark.parametrize(("columns", "width"), [("", 0), ("100", 100), ("5", 30), ("x", 0), ("0", 0), ("9999999", 0)])
def test_width(tmp_path: Path, columns: str, width: int) -> None:
    with (tmp_path / "out").open("w") as out:
        assert width_of(out, {"COLUMNS": columns}) == width
    assert width_of(io.StringIO(), {"COLUMNS": columns}) == 0


@given(st.lists(st.one_of(st.text(), st.sampled_from([shim(READY), FATAL, '{"MESSAGE": [1, 300]}', '{"msg": {"a": []}}']),
                          st.builds(shim, st.text()), st.builds(lambda value: json.dumps({"MESSAGE": value}), st.text())), max_size=6))
def test_any_stream_is_read(lines: list[str]) -> None:
    for diagnosis in collect(lines).diagnose():
        assert all(line.isascii() for line in show(diagnosis, 60))


@pytest.mark.parametrize("head", ["      Message:      ", "message of a container: "], ids=["describe", "kubectl-nvrc"])
def test_a_message_that_a_container_can_write_is_told_as_such(head: str) -> None:
    said = refusal(trouble("E_GPU_ATTACH", "persistenced", "none", "do"))
    found, = collect([head + said]).diagnose()
    assert (found.state, found.failure is not None, found.warnings) == (State.FAILED, True, (collecting.QUOTED,))
    found, = collect([head + said, f"Failed to create: desc = {said}"]).diagnose()
    assert found.warnings == ()


def test_records_in_records_are_not_written_for_each_of_them() -> None:
    """Their author may nest them: 100 KB in 400 of them were 40 MB of lines."""
    document: object = {"msg": "x" * 10_000}
    for _ in range(400):
        document = {"msg": "a", "inner": document}
    assert sum(map(len, documents.texts(document))) < 200_000
    assert READY in list(documents.texts({"a": [{"line": "b", "c": {"inner": [READY]}}]}))
