# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING.md's worked example, carried out in a copy of the tree: what the page says is all that has to be touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fakes.bytecode import uncounted

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?:New\s+file\s+`(?P<new>[^`]+)`|In\s+`(?P<path>[^`]+)`,\s+(?P<how>above|in\s+place\s+of)\s+`(?P<text>[^`]+)`):"
                   r"\n\n```\w*\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL)
# What looks at the tables that the example adds to.
TESTS = ("tests/nvrc/steps/test_entropy.py", "tests/nvrc/engine", "tests/nvrc/pages", "tests/nvrc/params/test_params_table.py",
         "tests/nvrc/params/test_params_command.py", "tests/nvrc/vocabulary", "tests/nvrc/report/test_plan.py",
         "tests/lab/scenario", "tests/test_architecture.py", "tests/lab/commands/test_words.py")


class Edit(NamedTuple):
    path: str
    how: str
    text: str
    block: str


def edits() -> Iterator[Edit]:
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("## A step in ten minutes")[2].partition("\n## ")[0]
    blocks = list(BLOCK.finditer(page))
    assert len(blocks) == page.count("\n```") // 2, "a block that no sentence says where to put"
    for found in blocks:
        yield Edit(found["new"] or found["path"], " ".join((found["how"] or "new").split()), found["text"] or "", found["block"])


def carry_out(tree: Path, edit: Edit) -> None:
    path = tree / edit.path
    if edit.how == "new":
        assert not path.exists()
        path.write_text(edit.block)
        return
    before = path.read_text()
    assert before.count(edit.text) == 1, edit
    if edit.how == "in place of":
        path.write_text(before.replace(edit.text, edit.block.strip("\n")))
        return
    lines = before.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if edit.text in line)
    path.write_text("".join((*lines[:at], edit.block, *lines[at:])))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, with the example carried out and the pages written; HEAD is the tree before."""
    target = tmp_path_factory.mktemp("tree")
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
            (target / name).chmod((ROOT / name).stat().st_mode)
    git(target, "init", "-q")
    git(target, "add", "-A")
    git(target, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "before")
    for edit in edits():
        carry_out(target, edit)
    run(target, "nvrc_lab.commands.docs")
    git(target, "add", "-A")
    return target


def git(tree: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=tree, check=True, capture_output=True, text=True).stdout


def run(tree: Path, *words: str) -> str:
    path = os.pathsep.join(str(tree / name) for name in (".", "build", "qemu-tests", "tests"))
    done = subprocess.run([sys.executable, "-m", *words], cwd=tree, capture_output=True, text=True, check=False, timeout=500,
                          env={**uncounted(), "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_is_all_that_is_touched(tree: Path) -> None:
    touched = set(git(tree, "diff", "--cached", "--name-only").split())
    pages = {name for name in touched if name.startswith("docs/")}
    assert touched - pages == {edit.path for edit in edits()}
    assert pages == {"docs/failure-codes.md", "docs/kernel-parameters.md", "docs/lab.md", "docs/machine.svg", "docs/pod-events.md"}


def test_a_plan_has_the_step_and_the_parameter(tree: Path) -> None:
    said = run(tree, "nvrc", "plan", "--machine", "cpu", "--cmdline", "nvrc.entropy=300")
    assert re.search(r"^entropy +yes +10 s +power off +always$", said, re.MULTILINE)
    assert re.search(r"^  nvrc\.entropy +300 ", said, re.MULTILINE)


@pytest.mark.parametrize("words", [("nvrc", "explain", "E_ENTROPY"), ("nvrc", "explain", "nvrc.entropy"), ("nvrc", "explain", "entropy"),
                                   ("nvrc_lab", "explain", "entropy-low")], ids=" ".join)
def test_everything_is_explained(tree: Path, words: tuple[str, ...]) -> None:
    assert "entropy" in run(tree, *words)


def test_tables_tests_and_lint_need_nothing_else(tree: Path) -> None:
    run(tree, "nvrc_lab.commands.docs", "--check")
    run(tree, "nvrc_lab.commands.words")
    run(tree, "mypy", "nvrc/steps/entropy.py", "nvrc/boot.py")
    run(tree, "ruff", "check", *{edit.path for edit in edits() if edit.path.endswith(".py")})
    run(tree, "pytest", "-q", "-p", "no:cacheprovider", "-m", "long or not long", *TESTS)
