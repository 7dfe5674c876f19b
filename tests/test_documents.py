# SPDX-License-Identifier: Apache-2.0
"""Every command that has --json, found by walking the parsers: what it prints is a document with `schema`, and what is
unset in it is null. Commands that boot machines, or build images, are rows of tests/qemu/test_documents.py.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fakes.documents import BOOTED, unset, walk_commands
from fakes.firmware import make_firmware
from fakes.kata_images import make_image
from fakes.sources import ROOT, nodes_of
from fakes.trouble import fatal_line
from guest_cdi.__main__ import main as cdi
from nvrc.cli import main as nvrc
from nvrc.report import report, status
from nvrc.report.report import Report, StepRecord
from nvrc.report.status import Status
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict
from nvrc_build.cli import main as image
from nvrc_lab.__main__ import main as lab

FAILED = Report(program="0.1.0", started_s=0.5, verdict=Verdict.FAILED, steps=(StepRecord(name="a", outcome=Outcome.FAIL),),
                failure=Trouble(code="E_TOPOLOGY", step="topology", what="a", hint="b"))
MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "nvrc": lambda words: nvrc(words, sys.stdout, sys.stderr), "guest-cdi": lambda words: cdi(["guest-cdi", *words]),
    "nvrc-image": image, "nvrc-lab": lab,
}
# Command: the words after it, once for each form of its document, with the exit status.
ROWS: dict[str, list[tuple[list[str], int]]] = {
    "nvrc plan": [(["--machine", "H100*8,nvswitch*4", "--cmdline", "nvrc.gpus=8"], 0), (["--machine", "H100*4,nvswitch*4", "--cmdline", "nvrc.log=x"], 1),
                  (["--record", "recorded"], 0)],
    "nvrc params list": [([], 0)],
    "nvrc params check": [(["nvrc.log=debug"], 0), (["nvrc.lgo=debug"], 1)],
    "nvrc params explain": [(["nvrc.smi.lgc"], 0)],
    "nvrc policy check": [(["policy.toml"], 0), (["broken.toml"], 1)],
    "nvrc policy explain": [(["policy.toml"], 0)],
    "nvrc policy suggest": [(["nvrc.log=debug"], 0)],
    "nvrc initdata check": [(["initdata.toml"], 0), (["broken.toml"], 1)],
    "nvrc initdata digest": [(["initdata.toml"], 0)],
    "nvrc explain": [(["E_GPU_ATTACH"], 0), (["nvrc.log"], 0), (["persistenced"], 0), (["Xid", "79"], 0), (["adapter-failed"], 0)],
    "nvrc report": [(["boot.json"], 1)],
    "nvrc topology": [(["boot.json"], 0)],
    "nvrc status": [(["--file", "status.json"], 1)],
    "nvrc doctor": [(["boot.json"], 1), (["status.json"], 1), (["console"], 1)],
    "nvrc version": [([], 0)],
    "guest-cdi validate": [(["spec.json"], 1)],
    "guest-cdi inject": [(["--bundle", "none", "--spec", "spec.json", "v.com/c=a"], 1)],
    "nvrc-image check": [([], 0)],
    "nvrc-image inspect": [(["nvidia"], 0)],
    "nvrc-image diff": [(["nvidia", "lab"], 1), (["lab", "lab"], 0)],
    "nvrc-image measure": [(["nvidia", "--firmware", "ovmf", "--cmdline", "console=hvc0"], 0)],
    "nvrc-image kata-config": [(["nvidia"], 0), (["nvidia", "--deploy", "deploy"], 0)],
    "nvrc-lab list": [([], 0)],
    "nvrc-lab explain": [(["gpu-1"], 0), (["faults"], 0), (["fault-table"], 0)],
}
# Tests of other tiers that have the whole of what the command needs, and hold its document against the same.
ELSEWHERE = {
    "guest-cdi generate": "tests/guest_cdi/test_cli_generate.py", "nvrc-image overlay": "tests/image/after/test_overlay_image.py",
    "nvrc-image check-extension": "tests/image/after/test_extension_disk.py", "nvrc-image enrol": "tests/image/after/test_variable_store.py",
}
# It rewrites rootfs/locks from an archive on the network; the rule on sources below is all that is held against it.
WITHOUT = {"nvrc-image lock"}
ELSEWHERE |= dict.fromkeys(("nvrc-image sign", "nvrc-image verify", "nvrc-image push", "nvrc-image pull"), "tests/image/after/test_share.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("documents")
    (made / "boot.json").write_bytes(report.to_json(FAILED))
    (made / "status.json").write_bytes(status.to_json(Status(program="0.1.0", verdict=Verdict.FAILED, updated_s=1.0, failure=FAILED.failure)))
    (made / "console").write_text(fatal_line("E_TOPOLOGY", "topology", "x", "y") + "\n")
    (made / "policy.toml").write_text('deny = ["nvrc.mig"]\n')
    (made / "broken.toml").write_text('deny = ')
    (made / "initdata.toml").write_text('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"nvrc.toml" = "params.nvrc.gpus = 2"\n')
    (made / "spec.json").write_text("{}")
    (made / "ovmf").write_bytes(make_firmware())
    for name in ("nvidia", "lab"):
        make_image(made / "out/images", name)
    return made


CASES = [pytest.param(command, words, expected, id=" ".join((command, *words)))
         for command, forms in ROWS.items() for words, expected in forms]


@pytest.mark.parametrize(("command", "words", "expected"), CASES)
def test_a_document_has_a_schema_and_nothing_unset_but_null(command: str, words: list[str], expected: int, folder: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    program, *chosen = command.split()
    own = ["--out", str(folder / "out")] if program == "nvrc-image" else []
    given = [str(folder / word) if (folder / word).exists() or word in ("recorded", "deploy", "none") else word for word in words]
    if program == "nvrc-image":
        given = [str(folder / "out/images" / word) if (folder / "out/images" / word).exists() else word for word in given]
    assert MAINS[program]([*chosen, *given, "--json", *own]) == expected
    told = capsys.readouterr()
    document = json.loads(told.out or told.err)
    assert isinstance(document, dict)
    assert type(document["schema"]) is int
    assert next(iter(document)) == "schema" or command == "nvrc-image measure"
    assert list(unset(document)) == []


def test_every_command_with_json_is_in_a_table() -> None:
    there = {name for name, options in walk_commands() if "--json" in options}
    assert there == ROWS.keys() | BOOTED.keys() | ELSEWHERE.keys() | WITHOUT


@pytest.mark.parametrize(("command", "file"), ELSEWHERE.items(), ids=ELSEWHERE)
def test_the_other_test_holds_the_document_against_the_same(command: str, file: str) -> None:
    text = (ROOT / file).read_text()
    assert '"--json"' in text and "unset(" in text and '["schema"]' in text


@pytest.mark.long
def test_no_command_prints_json_of_its_own() -> None:
    """json.dumps is for files and messages; what goes to standard output is written by nvrc.vocabulary.output."""
    found = []
    for path in (*(ROOT / "build/nvrc_build").rglob("*.py"), *(ROOT / "qemu-tests/nvrc_lab").rglob("*.py"), *(ROOT / "nvrc").rglob("*.py")):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found += [path.name for below in ast.walk(node) if isinstance(below, ast.Attribute) and below.attr == "dumps"]
    assert found == ["manners.py"], "manners.py writes errors, with schema"
