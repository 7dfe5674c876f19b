# SPDX-License-Identifier: Apache-2.0
"""Every command that prints a table, on terminals of 40, 60 and 80 columns: no line is wider, and nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fakes.documents import BOOTED, walk_commands
from fakes.forked import run_forked
from fakes.kata_images import make_image
from nvrc import cli
from nvrc.report import report, status
from nvrc.report.report import FunctionRecord, Report, Role, StepRecord
from nvrc.report.status import ServiceRecord, ServiceState, Status
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.terminal import flow, lay_table
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict
from nvrc_build import cli as image_cli
from nvrc_lab import __main__ as lab_cli
from nvrc_lab.commands import bench, matrix
from nvrc_lab.watch.figures import MEASURES, Row, Spread

UUID = "GPU-11223344-5566-7788-99aa-bbccddeeff00"
GPUS = (GpuRecord(bdf="0000:41:00.0", uuid=UUID, state=GpuState.FAILED, code="E_GPU_ATTACH", seconds=1.5),)
FAILURE = Trouble(code="E_GPU_ATTACH", step="persistenced", what="1 of 2 GPUs attached; GPU 0000:41:00.0 failed to attach",
                  hint="read the kernel's NVRM lines for that bus id; reset the GPU from the host")
REPORT = Report(program="0.1.0", started_s=0.5, ended_s=9.5, verdict=Verdict.FAILED, mode="gpu-nvl4", gpus=GPUS, failure=FAILURE,
                topology=(FunctionRecord(bdf="0000:41:00.0", ids="10de:2330", pci_class="030200", role=Role.GPU),), steps=(
                    StepRecord(name="persistenced", outcome=Outcome.FAIL, start_s=1.0, end_s=9.0, waited_s=7.5, detail=FAILURE.what, code=FAILURE.code),
                    StepRecord(name="cdi")))
STATUS = Status(program="0.1.0", verdict=Verdict.FAILED, updated_s=1.0, failure=FAILURE, gpus=GPUS, services=(
    ServiceRecord(name="nvidia-persistenced", state=ServiceState.FAILED, since_s=2.0, restarts=3, detail="killed by SIGKILL, the third time"),))
# Command: the words after it. Rows marked as documents print what another program reads; their width is theirs.
TABLES = {
    "nvrc plan": ["--machine", "H100*8,nvswitch*4", "--cmdline", "nvrc.log=debug nvrc.gpus=8"], "nvrc params list": [],
    "nvrc params check": ["nvrc.lgo=debug", "nvrc.smi.lgc=fast"], "nvrc params explain": ["nvrc.smi.lgc"],
    "nvrc policy check": ["policy.toml", "--cmdline", "nvrc.log=debug nvrc.smi.lgc=fast"], "nvrc policy explain": ["policy.toml"],
    "nvrc explain": ["E_GPU_ATTACH"], "nvrc report": ["boot.json"], "nvrc status": ["--file", "status.json"], "nvrc doctor": ["boot.json"],
    "nvrc-image check": [], "nvrc-image inspect": ["nvidia"], "nvrc-image diff": ["nvidia", "lab"],
    "nvrc-lab list": [], "nvrc-lab explain": ["gpu-8-nvswitch"],
}
NO_TABLE = {
    "nvrc topology": "a matrix, as wide as the machine has devices",
    "nvrc policy suggest": "a policy in TOML", "nvrc version": "one line that programs compare", "guest-cdi generate": "a document, and one line",
    "guest-cdi validate": "file:line: finding, as compilers print it", "guest-cdi inject": "a document, and one line", "guest-cdi hook": "nothing",
    "nvrc-image overlay": "parameters and a path to copy", "nvrc-image check-extension": "one line for each finding", "nvrc-image enrol": "one line",
    "nvrc-image kata-config": "documents to copy", "nvrc-image measure": "digests and commands to copy",
    "nvrc-image sign": "one line for each file", "nvrc-image verify": "one line for each finding", "nvrc-image push": "a reference to copy",
    "nvrc-image pull": "a path to copy",
    "nvrc initdata digest": "a digest to copy", "nvrc initdata make": "an annotation to copy", "nvrc initdata check": "one line for each finding", "nvrc-image lock": "one line for each package",
}
MAINS = {"nvrc": lambda words: cli.main(words, sys.stdout, sys.stderr), "nvrc-image": image_cli.main, "nvrc-lab": lab_cli.main}
# Names that are longer than the narrowest terminal are broken there; joined again they are whole.
WIDTHS = (40, 60, 80)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("narrow")
    (made / "boot.json").write_bytes(report.to_json(REPORT))
    (made / "status.json").write_bytes(status.to_json(STATUS))
    (made / "policy.toml").write_text('deny = ["nvrc.mig"]\n')
    for name in ("nvidia", "lab"):
        make_image(made / "out/images", name)
    return made


def run(command: str, words: list[str], folder: Path, width: int | None) -> str:
    program, *chosen = command.split()
    own = ["--out", str(folder / "out")] if program == "nvrc-image" else []
    kept = {"PATH": "/usr/bin:/bin", **({} if width is None else {"COLUMNS": str(width)})}
    done = run_forked(MAINS[program], [*chosen, *words, *own], folder, kept)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("command", "words"), TABLES.items(), ids=TABLES)
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(command: str, words: list[str], folder: Path) -> None:
    wide = run(command, words, folder, None)
    for width in WIDTHS:
        text = run(command, words, folder, width)
        assert [line for line in text.splitlines() if len(line) > width] == []
        told = "".join(text.split())
        # A bar is shorter, and where rows are lines an empty column has no head.
        missing = [word for word in wide.split() if word not in told and set(word) != {"#"} and word != "share"]
        assert missing == []


def test_every_command_is_in_a_table() -> None:
    assert {name for name, _ in walk_commands()} == TABLES.keys() | NO_TABLE.keys() | BOOTED.keys()


def test_the_tables_of_commands_that_boot_machines() -> None:
    spread = Spread(median=123.4, low=100.0, high=1234.5, runs=3)
    rows = [Row(scenario="gpu-8-nvswitch", init="nvrc", figures=dict.fromkeys(MEASURES, spread), steps={}, failed=())]
    for width in WIDTHS:
        text = flow("\n".join(bench.tables(rows, {"image": 8_300_000}, "tcg", width)), width)
        assert max(map(len, text.splitlines())) <= width
        assert text.count("123") >= len(MEASURES)
        assert all(f"{name}: " in text for name in MEASURES)
        text = flow("\n".join(matrix.summarise([], 61.0)), width)
        assert max(map(len, text.splitlines())) <= width


HEADS = ("name", "state", "what")
CELLS = [HEADS, ("a-long-name", "failed", "one two three four"), ("b", "", "")]


@pytest.mark.parametrize(("width", "expected"), [
    pytest.param(0, ["name         state   what", "a-long-name  failed  one two three four", "b"], id="unlimited"),
    pytest.param(39, ["name         state   what", "a-long-name  failed  one two three four", "b"], id="fits"),
    pytest.param(35, ["name         state   what", "a-long-name  failed  one two three", "                     four", "b"], id="the-last-column-is-wrapped"),
    pytest.param(30, ["name: a-long-name", "  state: failed", "  what: one two three four", "name: b"], id="a-row-becomes-lines"),
])
def test_a_table(width: int, expected: list[str]) -> None:
    assert lay_table(CELLS, width, has_heads=True) == expected


def test_text_is_continued_below_its_begin_and_ends_as_it_did() -> None:
    assert flow("  one two three four five six\nend\n", 20) == "  one two three four\n    five six\nend\n"
    assert flow("as it is\n" * 30, 0) == "as it is\n" * 30
