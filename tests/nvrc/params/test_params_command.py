# SPDX-License-Identifier: Apache-2.0
"""`nvrc params` as somebody at a terminal, or a script, uses it."""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nvrc.cli import main
from nvrc.commands import params
from nvrc.params.table import PARAMS
from nvrc.vocabulary.jsonread import FormatError


def run(*words: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser(prog="nvrc params", epilog=params.EPILOG)
    params.add_arguments(parser)
    out = io.StringIO()
    return params.run(parser.parse_args(words), out), out.getvalue()


def test_list_has_every_parameter_with_its_default() -> None:
    status, out = run("list")
    lines = out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines] == [row.name for row in PARAMS]
    assert lines[0].split(maxsplit=2) == ["nvrc.log", "off", "Lowest level of messages that reach the console"]


def test_list_for_machines_has_null_where_there_is_no_default() -> None:
    status, out = run("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)["parameters"]}
    assert status == 0
    assert rows["nvrc.smi.lgc"] == {
        "name": "nvrc.smi.lgc", "old_names": ["nvrc.nvidia_smi_lgc"], "form": "MHz, 1 to 10000", "default": None,
        "step": "gpu-settings", "sensitivity": "availability", "since": "0.1",
        "help": "Lock the graphics clock of all GPUs", "more": None}
    assert rows["nvrc.timeout.modules"]["default"] == "30"


def test_explain_takes_an_old_name() -> None:
    assert run("explain", "nvrc.nvidia_smi_srs") == (0, """\
nvrc.smi.srs
  Ask for the GPU ready state: 1 ready, 0 not ready.
  form:       0|1|enabled|disabled
  default:    unset
  read by:    parameters, ready-state
  worst case: trust
  since:      0.1
  old names:  nvrc.nvidia_smi_srs
  Without confidential mode there is no such state, and the request is a note in the report.
""")


def test_explain_without_more_to_say() -> None:
    status, out = run("explain", "nvrc.smi.pl")
    assert status == 0
    assert out.endswith("  since:      0.1\n")


def test_explain_for_machines() -> None:
    status, out = run("explain", "nvrc.dcgm", "--json")
    assert (status, json.loads(out)["default"]) == (0, "off")


@pytest.mark.parametrize(("name", "out"), [
    ("nvrc.smi.src", "nvrc.smi.src: unknown, did you mean nvrc.smi.srs?"),
    ("quiet", "quiet: unknown; see nvrc params list"),
])
def test_explain_of_nothing_known_is_a_wrong_call(name: str, out: str) -> None:
    with pytest.raises(FormatError, match=re.escape(out)):
        run("explain", name)


CHECKS = {
    "clean": (["quiet"], 0, "boots with every default\n"),
    "clean with something": (["nvrc.log=debug", "nvrc.mig=0:off;1:off"], 0,
                             "boots with nvrc.log=debug nvrc.mig=0:off;1:off\n"),
    "an old name is no finding": (["nvrc.smi.lmcd=5"], 0, (
        "notice   nvrc.smi.lmc: given by its old name nvrc.smi.lmcd, which works\nboots with nvrc.smi.lmc=5\n")),
    "ignored": (["nvrc.smi.src=1"], 1, (
        "warning  nvrc.smi.src: unknown, did you mean nvrc.smi.srs?\nboots with every default\n")),
    "refused": (["nvrc.smi.lgc=fast", "nvrc.smi.src=1"], 1, (
        "error    nvrc.smi.lgc: 'fast' is not a whole number of MHz from 1 to 10000\n"
        "warning  nvrc.smi.src: unknown, did you mean nvrc.smi.srs?\n"
        "1 of 2 findings would end the boot\n")),
    "words in one argument": (['nvrc.log=info "nvrc.dcgm=on"'], 0, "boots with nvrc.log=info nvrc.dcgm=on\n"),
    "not UTF-8": (["nvrc.log=\udcff"], 1, (
        "error    nvrc.log: '\\udcff' is not one of off|error|warn|info|debug|trace\n"
        "1 of 1 findings would end the boot\n")),
}


@pytest.mark.parametrize(("words", "status", "out"), CHECKS.values(), ids=CHECKS.keys())
def test_check_of_words(words: list[str], status: int, out: str) -> None:
    assert run("check", *words) == (status, out)


def test_check_for_machines() -> None:
    status, out = run("check", "--json", "nvrc.smi.src=1", "nvrc.log=info")
    document = json.loads(out)
    assert (status, document["ok"], document["boots"]) == (1, False, True)
    assert document["problems"] == [{"severity": "warning", "parameter": "nvrc.smi.src", "what": "unknown",
                                     "hint": "did you mean nvrc.smi.srs?"}]
    assert document["parameters"][0] == {"name": "nvrc.log", "value": "info", "source": "command line"}
    assert {"name": "nvrc.smi.pl", "value": None, "source": "default"} in document["parameters"]


def test_check_under_a_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('pin.nvrc.cc = "on"')
    assert run("check", "--policy", str(policy), "nvrc.cc=off") == (1, (
        "error    nvrc.cc: is off, but the image's policy pins it to on\n1 of 1 findings would end the boot\n"))


def test_check_of_a_file(tmp_path: Path) -> None:
    line = tmp_path / "cmdline"
    line.write_bytes(b"quiet nvrc.dcgm=on\n")
    assert run("check", "--file", str(line)) == (0, "boots with nvrc.dcgm=on\n")


def test_check_of_this_machine_reads_its_own_line() -> None:
    status, out = run("check", "--json")
    assert status in (0, 1)
    assert len(json.loads(out)["parameters"]) >= len(PARAMS) - 1


@pytest.mark.parametrize(("words", "message"), [
    (["--file", "/nonexistent/line"], "/nonexistent/line: No such file or directory\n"),
    (["--policy", "/nonexistent/policy", "quiet"], "/nonexistent/policy: No such file or directory\n"),
    (["--policy", "/proc/self/cmdline", "quiet"], "/proc/self/cmdline: "),
])
def test_check_that_cannot_be_done_is_no_finding(words: list[str], message: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert main(["params", "check", *words], out, err) == 2
    assert out.getvalue() == ""
    assert err.getvalue().startswith(f"nvrc params: {message}")


@pytest.mark.long
def test_check_of_standard_input() -> None:
    program = ("import argparse, sys; from nvrc.commands import params; p = argparse.ArgumentParser(); "
               "params.add_arguments(p); sys.exit(params.run(p.parse_args(), sys.stdout))")
    done = subprocess.run([sys.executable, "-c", program, "check", "-"], input=b"nvrc.log=\xff nvrc.dcgm=on",
                          capture_output=True, check=False, timeout=20, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stdout) == (1, (
        b"error    nvrc.log: '\\udcff' is not one of off|error|warn|info|debug|trace\n"
        b"1 of 1 findings would end the boot\n"))


def test_the_examples_in_the_help_are_commands() -> None:
    start = "  nvrc params "
    examples = [line.removeprefix(start) for line in params.EPILOG.splitlines() if line.startswith(start)]
    parser = argparse.ArgumentParser()
    params.add_arguments(parser)
    for example in examples:
        command = example.split("   ", 1)[0].split(" <")[0]
        assert parser.parse_args(shlex.split(command)).action in ("list", "explain", "check")
    assert len(examples) == 5


def test_words_missing_or_too_many_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["explain"], ["list", "x"], ["dance"]):
        with pytest.raises(SystemExit) as raised:
            run(*words)
        assert raised.value.code == 2
    assert "usage:" in capsys.readouterr().err
