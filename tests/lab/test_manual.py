# SPDX-License-Identifier: Apache-2.0
"""Manual pages and completion: as their parsers say, read by roff and by the shells that are here."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from nvrc.pages.manual import describe_cdi, describe_nvrc
from nvrc.vocabulary.completion import pages_of, write_bash
from nvrc.vocabulary.manual import Program, describe, keep, options_of, write_page
from nvrc_lab.manual import IMAGE, LAB

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {program.name: program for program in (describe_nvrc(), describe_cdi(), IMAGE, LAB)}
EVERY = [pytest.param(program, id=name) for name, program in PROGRAMS.items()]
ASK = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $(complete -p "$1" | sed "s/.*-F \\([^ ]*\\).*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.mark.parametrize("program", EVERY)
def test_the_tree_has_what_the_parsers_say(program: Program) -> None:
    pages = dict(pages_of(program))
    assert len(pages) == 4
    assert [name for name, text in pages.items() if (ROOT / name).read_text() != text] == []


@pytest.mark.parametrize("program", EVERY)
def test_every_command_and_option_is_on_the_page_and_completed(program: Program) -> None:
    texts = dict(pages_of(program))
    for command in program.commands:
        for name in [*command.words, *(name for action in options_of(command.parser) for name in action.option_strings)]:
            assert name.replace("-", "\\-") in texts[f"docs/man/{program.name}.1"]
            assert name in texts[f"docs/completion/{program.name}.bash"]
            assert name in texts[f"docs/completion/_{program.name}"]
            assert f" {name.lstrip('-')} " in texts[f"docs/completion/{program.name}.fish"]


@pytest.mark.parametrize(("line", "offered"), [
    pytest.param("nvrc pa", ["params"], id="command"), pytest.param("nvrc params ch", ["check"], id="command of a command"),
    pytest.param("nvrc params check --p", ["--policy"], id="option"),
    pytest.param("nvrc --json params exp", ["explain"], id="after an option"),
    pytest.param("nvrc plan --policy pol", [], id="a file is the shell's"),
    pytest.param("guest-cdi generate --mode g", ["gdrcopy", "gds"], id="value"),
    pytest.param("guest-cdi generate --hook-s", ["--hook-style"], id="guest-cdi"),
    pytest.param("nvrc-image kata-config nvidia --dep", ["--deploy"], id="nvrc-image"),
    pytest.param("nvrc-lab ma", ["matrix"], id="nvrc-lab"), pytest.param("nvrc nothing pa", ["params"], id="no command"),
])
def test_bash_offers(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    done = subprocess.run(["bash", "--norc", "-c", ASK, "bash", ROOT / f"docs/completion/{words[0]}.bash", *words],
                          capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (offered, "")


@pytest.mark.parametrize(("shell", "files"), [("bash", "*.bash"), ("zsh", "_*"), ("fish", "*.fish")])
def test_a_shell_that_is_here_reads_them(shell: str, files: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not on this machine")
    paths = sorted((ROOT / "docs/completion").glob(files))
    assert len(paths) == 4
    for path in paths:
        done = subprocess.run([found, "-n", path], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_texts_are_quoted_for_their_readers() -> None:
    parser = argparse.ArgumentParser(prog="p", description="It's a test.", epilog=".hidden\nC:\\dir")
    parser.add_argument("--odd", choices=("a b", "c"), default="c", help="don't '$(x)' 100%% of %(default)s")
    program = describe("p", "0.", parser)
    assert "don't '$(x)' 100% of c\n" in write_page(program)
    assert "\\&.hidden\nC:\\edir\n" in write_page(program)
    assert "words='a b c'" in write_bash(program)
    assert r"don'\''t" in dict(pages_of(program))["docs/completion/_p"]


def test_a_stale_page_is_named_and_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = str(tmp_path / "man/p.1")
    assert keep([(page, "new")], ["--check"]) == 1
    assert capsys.readouterr().err == f"{page}: out of date, run ./dev docs\n"
    assert (keep([(page, "new")], []), keep([(page, "new")], ["--check"])) == (0, 0)
