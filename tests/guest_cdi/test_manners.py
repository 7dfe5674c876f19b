# SPDX-License-Identifier: Apache-2.0
"""What every command of guest-cdi has in common: the version, near misses, errors as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import guest_cdi
import nvrc
from guest_cdi.__main__ import COMMANDS, USAGE, main


def test_version_is_that_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guest-cdi", "--version"]) == 0
    assert capsys.readouterr().out == f"guest-cdi {nvrc.__version__}\n"
    assert guest_cdi.__version__ == nvrc.__version__


@pytest.mark.parametrize(("command", "said"), [
    ("genrate", "guest-cdi: error: no command 'genrate', did you mean generate?\n"),
    ("inyect", "guest-cdi: error: no command 'inyect', did you mean inject?\n"), ("frob", USAGE), ("", USAGE)])
def test_a_command_that_is_none(capsys: pytest.CaptureFixture[str], command: str, said: str) -> None:
    assert main(["guest-cdi", command]) == 2
    assert capsys.readouterr() == ("", said)


def test_every_command_is_in_the_help() -> None:
    assert all(f"\n  {command} " in USAGE for command in COMMANDS)


@pytest.mark.parametrize("argv", [["generate", "--frob", "--json"], ["validate", "--json"], ["inject", "--json", "x"]], ids=" ".join)
def test_a_wrong_line_with_json_is_a_document(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["guest-cdi", *argv])
    out, err = capsys.readouterr()
    document = json.loads(err)
    assert (raised.value.code, out) == (2, "")
    assert (document["schema"], document["code"]) == (1, "E_CDI_USAGE")
    assert document["what"] and document["hint"]


def test_without_json_it_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["guest-cdi", "validate"])
    assert capsys.readouterr().err.startswith("usage: guest-cdi validate")


def test_documents_have_a_schema(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert main(["guest-cdi", "validate", "--json", str(tmp_path / "a.json")]) == 1
    assert json.loads(capsys.readouterr().out)["schema"] == 1
    assert main(["guest-cdi", "inject", "--json", "--bundle", str(tmp_path / "none"), "--spec", str(tmp_path / "a.json"), "v.com/c=a"]) == 1
    assert json.loads(capsys.readouterr().err)["schema"] == 1
