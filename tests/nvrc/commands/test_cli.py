# SPDX-License-Identifier: Apache-2.0
"""The command line: dispatch, help with examples, exit statuses, and the line that says which program this is."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import nvrc
from fakes.bytecode import BYTECODE
from nvrc.cli import COMMANDS, load_command, main
from nvrc.commands import doctor, version
from nvrc.report import report, status
from nvrc.report.diagnosis import Diagnosis
from nvrc.report.report import Report, StepRecord
from nvrc.report.status import ServiceRecord, ServiceState, Status
from nvrc.vocabulary.console import report_lines
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.identity import UNKNOWN, identity_line, program_hash
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

ROOT = Path(__file__).parents[3]


def call(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(argv, out, err), out.getvalue(), err.getvalue()


def run_program(argv: Sequence[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "nvrc", *argv], input=data, capture_output=True, check=False, cwd=ROOT,
                          timeout=60, env={"PATH": os.environ["PATH"], **BYTECODE})


# Which program --------------------------------------------------------------------------------------------------------


# The hash of a checkout changes with its files, which may happen between two calls: only its form is compared here.
IDENTITY = re.compile(rf"NVRC version={re.escape(nvrc.__version__)} sha256=[0-9a-f]{{64}}\n")


@pytest.mark.long
def test_program_without_arguments_prints_the_identity_line_and_nothing_else() -> None:
    done = run_program([])
    assert (done.returncode, done.stderr) == (0, b"")
    assert IDENTITY.fullmatch(done.stdout.decode())


@pytest.mark.parametrize("argv", [[], ["version"]], ids=["nothing", "version"])
def test_identity_line_has_the_agreed_form(argv: list[str]) -> None:
    status, out, err = call(*argv)
    assert (status, err) == (0, "")
    assert IDENTITY.fullmatch(out)


def test_identity_as_json() -> None:
    document = json.loads(call("version", "--json")[1])
    assert list(document) == ["schema", "version", "sha256"]
    assert IDENTITY.fullmatch(identity_line(document["sha256"]) + "\n")


def test_no_proc_is_an_unknown_hash(tmp_path: Path) -> None:
    assert program_hash(str(tmp_path / "proc/self/exe"), str(tmp_path)) == UNKNOWN
    assert program_hash(sys.executable, str(tmp_path / "gone")) == UNKNOWN


def frozen_program(root: Path) -> Path:
    bundle = root / "app/_internal"
    (bundle / "lib").mkdir(parents=True)
    (root / "app/nvrc").write_bytes(b"launcher")
    (bundle / "base.zip").write_bytes(b"library")
    (bundle / "lib/b.so").write_bytes(b"code")
    (root / "app/guest-cdi").symlink_to("nvrc")
    (root / "exe").symlink_to(root / "app/nvrc")
    return bundle


def test_hash_of_a_frozen_program_is_what_sha256sum_gives(tmp_path: Path) -> None:
    bundle = frozen_program(tmp_path)
    listed = subprocess.run(
        ["/bin/sh", "-c", "find nvrc _internal -type f -o -type l | LC_ALL=C sort | xargs sha256sum | sha256sum"],
        cwd=tmp_path / "app", capture_output=True, check=True)
    assert program_hash(str(tmp_path / "exe"), str(bundle)) == listed.stdout.split()[0].decode()


def test_frozen_program_hashes_its_bundle(tmp_path: Path) -> None:
    bundle = frozen_program(tmp_path)
    exe = str(tmp_path / "exe")
    assert version.own_hash(exe, str(bundle)) == program_hash(exe, str(bundle)) != version.own_hash()


def test_any_changed_file_changes_the_hash(tmp_path: Path) -> None:
    bundle = frozen_program(tmp_path)
    seen = {program_hash(str(tmp_path / "exe"), str(bundle))}
    for changed in (tmp_path / "app/nvrc", bundle / "base.zip", bundle / "lib/b.so"):
        changed.write_bytes(changed.read_bytes() + b"x")
        seen.add(program_hash(str(tmp_path / "exe"), str(bundle)))
    (bundle / "lib/b.so").rename(bundle / "lib/c.so")
    seen.add(program_hash(str(tmp_path / "exe"), str(bundle)))
    assert len(seen) == 5


def test_hash_in_a_checkout_covers_interpreter_and_sources(tmp_path: Path) -> None:
    package = tmp_path / "checkout/nvrc"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a")
    (package / "a.pyc").write_text("not a source")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text("interpreter")
    listing = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
                      for name, text in (("nvrc/a.py", "a"), ("python", "interpreter")))
    found = program_hash(str(tmp_path / "bin/python"), str(package), ".py")
    assert found == hashlib.sha256(listing.encode()).hexdigest()


# Dispatch -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples(name: str) -> None:
    status, out, err = call(name, "--help")
    assert (status, err) == (0, "")
    assert f"usage: nvrc {name}" in out
    assert "examples:\n  nvrc" in out
    assert f"  nvrc {name}" in out.split("examples:")[1]
    assert name == load_command(name).NAME
    assert load_command(name).HELP in " ".join(out.split())


def examples() -> list[str]:
    found = [line for name in COMMANDS for line in load_command(name).EPILOG.splitlines()
             if line.startswith("  ") and re.search(r"\bnvrc\b", line)]
    return [re.split(r"  +", line.strip())[0] for line in found]


@pytest.mark.parametrize("example", examples())
def test_every_example_of_a_help_is_a_command(example: str) -> None:
    """Of a pipe, the part that is ours."""
    words = shlex.split(example.rpartition("|")[2].partition(" <")[0])
    assert words[0] == "nvrc"
    if words[1:]:
        command = load_command(words[1])
        parser = argparse.ArgumentParser(exit_on_error=False)
        command.add_arguments(parser)
        parser.parse_args(words[2:])
        assert words[1] == command.NAME


def test_overview_lists_every_command() -> None:
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name:9} {load_command(name).HELP}\n" in out


@pytest.mark.parametrize("argv", [
    pytest.param(["frobnicate"], id="unknown-command"), pytest.param(["--frob"], id="unknown-option"),
    pytest.param(["report", "--frob"], id="unknown-option-of-command"),
    pytest.param(["plan", "--sysfs", "x", "--machine", "y"], id="contradiction"),
    pytest.param(["version", "--js"], id="no-abbreviations"),
])
def test_wrong_calls_are_status_2_and_explained(argv: list[str]) -> None:
    status, out, err = call(*argv)
    assert (status, out) == (2, "")
    assert "usage: nvrc" in err
    assert "error: " in err


@pytest.mark.parametrize(("argv", "said"), [
    pytest.param(["doctr"], "no command 'doctr', did you mean doctor?", id="near-miss"),
    pytest.param(["\x1b[2J"], "invalid choice", id="hostile"),
])
def test_a_command_that_is_none(argv: list[str], said: str) -> None:
    status, out, err = call(*argv)
    assert (status, out) == (2, "")
    assert said in err
    assert "\x1b" not in err


@pytest.mark.parametrize("argv", [["--version"], ["-V"]])
def test_version_as_an_option(argv: list[str]) -> None:
    status, out, err = call(*argv)
    assert (status, err) == (0, "")
    assert IDENTITY.fullmatch(out)


@pytest.mark.parametrize(("argv", "command", "what"), [
    pytest.param(["doctr", "--json"], None, "no command 'doctr', did you mean doctor?", id="command"),
    pytest.param(["report", "--json", "--frob"], "report", "unrecognized arguments: --frob", id="option"),
    pytest.param(["params", "check", "--json", "--frob"], "params", "unrecognized arguments: --frob", id="option-below"),
    pytest.param(["report", "--json", "/nonexistent/x"], "report", "/nonexistent/x: No such file or directory", id="file"),
    pytest.param(["explain", "--json", "E_GPU_ATACH"], "explain", "E_GPU_ATACH: unknown, did you mean E_GPU_ATTACH?", id="word"),
])
def test_with_json_errors_are_json_too(argv: list[str], command: str | None, what: str) -> None:
    status, out, err = call(*argv)
    assert (status, out) == (2, "")
    document = json.loads(err)
    assert (document["schema"], document["command"], document["what"]) == (1, command, what)


JSON_CALLS = (["version"], ["params", "list"], ["params", "check", "quiet"], ["params", "explain", "nvrc.log"], ["explain", "E_MIG"],
              ["plan", "--cmdline", ""], ["plan", "--machine", "H100", "--cmdline", ""])


@pytest.mark.parametrize("argv", JSON_CALLS, ids=" ".join)
def test_every_document_has_a_schema_and_says_null_for_what_is_unset(argv: list[str]) -> None:
    def is_clean(value: object) -> bool:
        if isinstance(value, dict):
            return all(map(is_clean, value.values()))
        return all(map(is_clean, value)) if isinstance(value, list) else value != ""

    document = json.loads(call(*argv, "--json")[1])
    assert next(iter(document)) == "schema"
    assert is_clean(document)


@pytest.mark.long
def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    done = subprocess.run(f"{sys.executable} -m nvrc params list | true; test ${{PIPESTATUS[0]}} -le 1", shell=True, cwd=ROOT, executable="/bin/bash",
                          capture_output=True, check=False, env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.long
def test_only_the_command_that_is_called_is_imported() -> None:
    code = ("import sys; import nvrc.cli; from nvrc.cli import main; status = main(['version']);"
            "print(sorted(n for n in sys.modules if n in [f'nvrc.commands.{c}' for c in nvrc.cli.COMMANDS]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, text=True)
    assert done.stdout.splitlines()[1] == "['nvrc.commands.version']"


class Breaking(io.StringIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, _text: str) -> int:
        raise self.error


@pytest.mark.parametrize(("error", "status", "said"), [
    pytest.param(BrokenPipeError(32, "Broken pipe"), 1, "", id="reader-went-away"),
    pytest.param(OSError(28, "No space left on device"), 2, "nvrc version: output: No space left on device\n",
                 id="disk-full"),
    pytest.param(KeyboardInterrupt(), 130, "", id="ctrl-c"),
])
def test_output_that_fails(error: BaseException, status: int, said: str) -> None:
    err = io.StringIO()
    assert main(["version"], Breaking(error), err) == status
    assert err.getvalue() == said


def test_arguments_are_the_commands_own() -> None:
    parser = argparse.ArgumentParser()
    load_command("doctor").add_arguments(parser)
    assert parser.parse_args([]).file is None
    assert parser.parse_args(["console.log"]).file == "console.log"


# Commands over files --------------------------------------------------------------------------------------------------

READY = Report(program="nvrc 0.1.0", verdict=Verdict.READY, mode="gpu", started_s=1.5, interpreter_s=0.04, ended_s=1.8,
               steps=(StepRecord(name="filesystems", outcome=Outcome.OK, start_s=1.5, end_s=1.6),))
FAILED = Report(program="nvrc 0.1.0", verdict=Verdict.FAILED, started_s=1.5, ended_s=1.8,
                failure=Trouble(code="E_TOPOLOGY", step="topology", what="3 GPUs", hint="pass four"))
LIVE = Status(program="nvrc 0.1.0", verdict=Verdict.READY, mode="gpu", updated_s=9.0,
              services=(ServiceRecord(name="agent", state=ServiceState.RUNNING, pid=87, since_s=1.8),))


def stored(folder: Path, data: bytes) -> str:
    file = folder / "document"
    file.write_bytes(data)
    return str(file)


@pytest.mark.parametrize(("value", "status"), [(READY, 0), (FAILED, 1), (Report(program="x", started_s=1.0), 1)],
                         ids=["ready", "failed", "booting"])
def test_report_prints_again_what_it_checked(tmp_path: Path, value: Report, status: int) -> None:
    file = stored(tmp_path, report.to_json(value))
    assert call("report", file, "--json") == (status, report.to_json(value).decode(), "")
    assert call("report", file)[0] == status


def test_report_draws_to_file_and_to_output(tmp_path: Path) -> None:
    file = stored(tmp_path, report.to_json(READY))
    assert call("report", file, "--svg", str(tmp_path / "boot.svg")) == (0, "", "")
    picture = (tmp_path / "boot.svg").read_text()
    assert picture.startswith("<svg ")
    assert call("report", file, "--svg", "-") == (0, picture, "")


def test_standard_input_is_a_dash() -> None:
    assert read_input("-", io.BytesIO(b"x" * 100)) == b"x" * 100


@pytest.mark.long
def test_report_from_standard_input() -> None:
    done = run_program(["report", "-"], report.to_json(FAILED))
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"E_TOPOLOGY in step topology: 3 GPUs\n  pass four\n" in done.stdout


def test_report_is_found_in_a_console_log(tmp_path: Path) -> None:
    def said(value: Report) -> str:
        return "".join(f"[    3.901] {line}\r\n" for line in report_lines(report.to_json(value)))

    cut_off = said(READY).removesuffix("[    3.901] nvrc: report }\r\n")
    log = "SeaBIOS\n" + said(FAILED) + said(READY) + "nvrc: warn between\n" + cut_off
    code, out, err = call("report", stored(tmp_path, log.encode()), "--json")
    assert (code, out, err) == (0, report.to_json(READY).decode(), "")


def test_log_without_a_report_says_how_to_get_one(tmp_path: Path) -> None:
    code, _, err = call("report", stored(tmp_path, b"nvrc: READY in 1.000s mode=gpu gpus=8 cdi=9 agent=87\n"))
    assert code == 2
    assert "neither a report nor a console log with one; nvrc.report=console puts it there" in err


@pytest.mark.parametrize(("argv", "data", "said"), [
    (["report"], b"{}", "schema: missing"), (["status", "--file"], b"[]", "document: expected an object, not []"),
    (["doctor"], b'{"services": 1}', "services: expected a list, not 1"), (["doctor"], b'{"schema": 2', "not JSON: "),
], ids=["report", "status", "doctor-status", "doctor-report"])
def test_documents_that_are_none(tmp_path: Path, argv: list[str], data: bytes, said: str) -> None:
    file = stored(tmp_path, data)
    status, out, err = call(*argv, file)
    assert (status, out) == (2, "")
    assert err.startswith(f"nvrc {argv[0]}: {file}: ")
    assert f"{file}: {said}" in err


@pytest.mark.parametrize("command", [["report"], ["topology"], ["status", "--file"], ["doctor"]], ids=lambda argv: argv[0])
def test_a_key_of_a_foreign_document_does_not_write_to_the_terminal(tmp_path: Path, command: list[str]) -> None:
    data = json.dumps({"schema": 2, "services": [], "\x1b]0;title\x07\x1b[2J\u202e\rready": 1}).encode()
    status, out, err = call(*command, stored(tmp_path, data))
    assert (status, out) == (2, "")
    assert "unknown key" in err
    assert err.removesuffix("\n").isprintable()


def test_a_name_of_a_file_does_not_write_to_the_terminal(tmp_path: Path) -> None:
    status, out, err = call("doctor", str(tmp_path / "a\x1b[2J.log"))
    assert (status, out) == (2, "")
    assert err.removesuffix("\n").isprintable()


def test_a_status_as_text_is_no_longer_than_what_is_in_it(tmp_path: Path) -> None:
    """A row is filled up to the widest cell of its column, which a hostile guest may choose."""
    rows = tuple(replace(LIVE.services[0], name="x" * (50_000 if number == 0 else 1)) for number in range(500))
    data = status.to_json(replace(LIVE, services=rows))
    _, out, _ = call("status", "--file", stored(tmp_path, data))
    assert len(out) < 2 * len(data)


@pytest.mark.parametrize(("verdict", "code"), [
    (Verdict.READY, 0), (Verdict.NO_GPU, 0), (Verdict.DEGRADED, 1), (Verdict.FAILED, 1), (Verdict.BOOTING, 1)])
def test_status_exit_is_the_verdict(tmp_path: Path, verdict: Verdict, code: int) -> None:
    value = Status(program="nvrc 0.1.0", verdict=verdict, updated_s=9.0)
    file = stored(tmp_path, status.to_json(value))
    assert call("status", "--file", file, "--json") == (code, status.to_json(value).decode(), "")


def test_status_as_text(tmp_path: Path) -> None:
    code, out, _ = call("status", "--file", stored(tmp_path, status.to_json(LIVE)))
    assert code == 0
    assert out == ("nvrc 0.1.0: ready, mode gpu\n"
                   "as of 9.000 s after the kernel started; 0 orphans reaped, 0 log messages, 0 dropped\n"
                   "\nservices:\n  agent  running  pid 87  0 restarts  since 1.800 s\n")


def test_status_outside_a_vm_says_which_file_is_missing() -> None:
    code, out, err = call("status", "--file", "/nonexistent/status.json")
    assert (code, out, err) == (2, "", "nvrc status: /nonexistent/status.json: No such file or directory\n")


def test_doctor_tells_documents_and_logs_apart(tmp_path: Path) -> None:
    def first_line(data: bytes) -> tuple[int, str]:
        code, out, _ = call("doctor", stored(tmp_path, data))
        return code, out.splitlines()[0]

    assert first_line(report.to_json(FAILED)) == (1, "failed: E_TOPOLOGY in step topology")
    assert first_line(report.to_json(READY)) == (0, "ready: ready, mode gpu")
    assert first_line(status.to_json(LIVE)) == (0, "ready: ready, mode gpu")
    assert first_line(b"nvrc: READY in 1.000s mode=gpu gpus=8 cdi=9 agent=87\r\n") == (
        0, "ready: ready in 1.000 s, mode gpu, 8 GPUs, 9 CDI devices")
    assert first_line(b"[    0.100000] \xff\x00 boot:\n") == (
        1, "unfinished: no line of this init: it never ran, or this is another log")


def test_doctor_explains_by_the_table_of_codes(tmp_path: Path) -> None:
    log = b'nvrc: step filesystems ok 0.001s\nnvrc: warn odd\x1b[2J\nnvrc: FATAL code=E_TOPOLOGY step=topology what="3 GPUs" hint="do"\n'
    code, out, _ = call("doctor", stored(tmp_path, log))
    assert code == 1
    assert out.splitlines() == [
        "failed: E_TOPOLOGY in step topology", "  what     3 GPUs",
        "  cause    the PCI devices match no supported machine", "  do       do",
        "  do       compare the list in the message with docs/topologies.md and fix the devices passed to the VM",
        "  who      node operator", "  steps    filesystems ok", "  warning  odd\\x1b[2J"]
    document = json.loads(call("doctor", stored(tmp_path, log), "--json")[1])["diagnoses"][0]
    assert (document["state"], document["failure"]["code"], document["who"]) == ("failed", "E_TOPOLOGY", "node operator")


def diagnose_bytes(data: bytes) -> Diagnosis:
    (found,) = doctor.diagnose_stream("x", io.BytesIO(data))
    return found


def test_doctor_does_not_repeat_a_hint_that_is_the_remedy() -> None:
    remedy = diagnose_bytes(report.to_json(FAILED)).remedy
    log = f'nvrc: FATAL code=E_TOPOLOGY step=topology what="3 GPUs" hint="{remedy}"\n'
    lines = list(doctor.show(diagnose_bytes(log.encode())))
    assert sum(remedy in line for line in lines) == 1


def test_doctor_in_a_vm_knows_what_has_happened_since_the_boot(tmp_path: Path) -> None:
    boot, live, nobody = stored(tmp_path, report.to_json(READY)), tmp_path / "status.json", str(tmp_path / "no.sock")
    assert doctor.diagnose_vm(boot, nobody, str(live)).state.value == "ready", "without a status the boot's word stands"
    live.write_bytes(status.to_json(LIVE))
    assert doctor.diagnose_vm(boot, nobody, str(live)).summary == "ready, mode gpu"
    lost = replace(LIVE, verdict=Verdict.DEGRADED, degraded_by=(Trouble(
        code="E_GPU_LOST", step="supervise", what="GPU 0000:41:00.0: Xid 79", hint="check it"),))
    live.write_bytes(status.to_json(lost))
    found = doctor.diagnose_vm(boot, nobody, str(live))
    assert (found.state.value, found.summary) == ("degraded", "mode gpu; degraded by E_GPU_LOST")
    assert found.finished_steps == ("filesystems ok",)
    assert "  what     GPU 0000:41:00.0: Xid 79" in list(doctor.show(found))


def test_doctor_names_further_troubles(tmp_path: Path) -> None:
    troubles = tuple(Trouble(code=code, step="supervise", what=f"{code} what", hint="do") for code in ("E_GPU_LOST", "E_SERVICE_LOST"))
    live = replace(LIVE, verdict=Verdict.DEGRADED, degraded_by=troubles)
    code, out, _ = call("doctor", stored(tmp_path, status.to_json(live)))
    assert code == 1
    assert "  also     E_SERVICE_LOST E_SERVICE_LOST what: do" in out.splitlines()
    code, out, _ = call("status", "--file", stored(tmp_path, status.to_json(live)))
    assert code == 1
    assert "degraded by:\n  E_GPU_LOST in step supervise: E_GPU_LOST what\n    do\n" in out


def test_a_form_feed_does_not_begin_a_line() -> None:
    log = b"[    0.100000] container: \x0cnvrc: READY in 1.000s mode=gpu gpus=8 cdi=9 agent=87\n"
    assert diagnose_bytes(log).state.value == "unfinished"
