# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvrc_lab.ground.errors import LabError
from nvrc_lab.mutation import __main__ as mutate
from nvrc_lab.mutation.shapes import Mutant, changed_line, dropped, shape
from nvrc_lab.mutation.table import BAR_PERCENT, ROWS
from nvrc_lab.mutation.trial import Copy, Seen

ROOT = Path(__file__).resolve().parents[3]
MODULE = "def doubled(names: list[str]) -> bool:\n    return len(set(names)) != len(names)\n"
NOTICES = "from module import doubled\n\ndef test_two_of_one_name() -> None:\n    assert doubled(['a', 'a'])\n"
SLEEPS = "from module import doubled\n\ndef test_asks_nothing() -> None:\n    doubled([])\n"
COLLECTS = ("import pytest\nfrom module import doubled\n\n@pytest.mark.parametrize('seen', [doubled(['a', 'a'])])\n"
            "def test_two_of_one_name(seen: bool) -> None:\n    assert seen\n")
STARTS = ("import subprocess, sys\n\ndef test_two_of_one_name() -> None:\n"
          "    asked = 'from module import doubled; sys.exit(doubled([0, 0]))'\n"
          "    assert subprocess.run([sys.executable, '-c', 'import sys; ' + asked]).returncode == 1\n")


def a_checkout(folder: Path, test: str) -> Path:
    (folder / "tests").mkdir(parents=True)
    (folder / "module.py").write_text(MODULE)
    (folder / "tests" / "test_module.py").write_text(test)
    (folder / "tests" / "conftest.py").write_text("from hypothesis import settings\nsettings.register_profile('thorough')\n")
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


@pytest.mark.parametrize(("before", "after", "same"), [
    pytest.param("x: int | None = 1\n", "x: int & None = 1\n", True, id="an annotation is never evaluated"),
    pytest.param("def f(a: int | str) -> int | str: return a\n", "def f(a: int & str) -> int & str: return a\n", True,
                 id="nor one of an argument or an answer"),
    pytest.param("NAMES = (1, 2)\n", "NAMES = (1, 3)\n", True, id="a table that the row names"),
    pytest.param("LIMITS = (1, 2)\n", "LIMITS = (1, 3)\n", False, id="a table that it does not name"),
    pytest.param("def f(): return 1\n", "def f(): return 2\n", False, id="an answer"),
    pytest.param("@dataclass(frozen=True)\nclass A: ...\n", "@dataclass(frozen=False)\nclass A: ...\n", True,
                 id="what a test of all dataclasses sees to"),
    pytest.param("@dataclass(order=True)\nclass A: ...\n", "@dataclass(order=False)\nclass A: ...\n", False,
                 id="an order that a dataclass has of its own"),
    pytest.param("if TYPE_CHECKING: import a\n", "if not TYPE_CHECKING: import a\n", True, id="for the type checker"),
])
def test_only_what_the_interpreter_acts_on_makes_a_mutant(before: str, after: str, same: bool) -> None:
    assert (shape(before, frozenset({"NAMES"})) == shape(after, frozenset({"NAMES"}))) is same


def test_what_is_no_program_has_no_shape() -> None:
    assert shape("def f(:\n", frozenset()) == ""


def test_a_refusal_and_an_effect_are_dropped_each_by_itself() -> None:
    source = '"""Words."""\ndef f(x):\n    """More."""\n    note(x)\n    if x:\n        raise ValueError(\n            x)\n'
    assert [(mutant.operator, mutant.line, mutant.source.splitlines()[mutant.line - 1]) for mutant in dropped(source)] == [
        ("DropExpr", 4, "    pass"), ("DropRaise", 6, "        pass")]


def test_a_change_is_told_by_its_first_line() -> None:
    assert changed_line("a\nb\nc\n", "a\nB\nc\n") == 2


@contextmanager
def a_copy(tmp_path: Path, test: str) -> Iterator[Copy]:
    copy = Copy.of(a_checkout(tmp_path / "checkout", test), tmp_path / "copy")
    try:
        yield copy
    finally:
        copy.close()


@pytest.mark.long
@pytest.mark.parametrize(("test", "mutants"), [
    pytest.param(NOTICES, [("!=", "==", True), ("def doubled", "import nothing\n\ndef doubled", True)],
                 id="a test that asks notices, outside of functions as well"),
    pytest.param(SLEEPS, [("!=", "==", False), ("def doubled", "OTHER = 1\n\ndef doubled", False)],
                 id="a test that only calls does not, nor outside of functions"),
    pytest.param(COLLECTS, [("!=", "==", True)], id="a value of which tests are collected"),
])
def test_a_mutant_meets_its_tests_in_a_copy(tmp_path: Path, test: str, mutants: Sequence[tuple[str, str, bool]]) -> None:
    with a_copy(tmp_path, test) as copy:
        copy.begin("module.py", ["tests"])
        for before, after, noticed in mutants:
            assert copy.notices("module.py", MODULE.replace(before, after), ["tests"]) is noticed, after
        assert copy.notices("module.py", MODULE, ["tests"]) is False  # what one mutant did does not reach the next
        assert (tmp_path / "copy/module.py").read_text() == (tmp_path / "checkout/module.py").read_text() == MODULE


@pytest.mark.long
def test_a_program_that_a_test_starts_runs_the_mutant(tmp_path: Path) -> None:
    with a_copy(tmp_path, STARTS) as copy:
        copy.begin("module.py", ["tests"])
        assert copy.notices("module.py", MODULE.replace("!=", "=="), ["tests"])


@pytest.mark.namespace
@pytest.mark.parametrize("own", [False, True], ids=["a fork", "a process of its own"])
def test_a_module_that_changes_mounts_has_them_to_itself(tmp_path: Path, own: bool) -> None:
    test = ("import os\nfrom pathlib import Path\n\ndef space(process: object) -> str:\n"
            "    return os.readlink(f'/proc/{process}/ns/mnt')\n\ndef test_apart() -> None:\n"
            "    assert space('self') != Path('../space').read_text()\n"
            "    assert os.getppid() == 0 or space('self') != space(os.getppid())  # the session of all forks\n")
    (tmp_path / "space").write_text(os.readlink("/proc/self/ns/mnt"))
    with a_copy(tmp_path, test) as copy:
        copy.begin("module.py", ["tests"], apart=True)
        if own:
            assert copy.ask(["tests"])[0] is Seen.SURVIVED


@pytest.mark.skipif(os.geteuid() == 0, reason="root may make namespaces")
def test_a_module_that_changes_mounts_is_asked_by_root_only(tmp_path: Path) -> None:
    with a_copy(tmp_path, NOTICES) as copy, pytest.raises(LabError, match="takes root"):
        copy.begin("module.py", ["tests"], apart=True)


@pytest.mark.long
def test_a_mutant_that_never_ends_is_ended(tmp_path: Path) -> None:
    """In a process of its own; in a fork; and there, if it takes without end, long before its limit."""
    with a_copy(tmp_path, NOTICES) as copy:
        copy.put("module.py", harmed("while True: pass"))
        assert copy.ask(["tests"], limit_s=2.0)[0] is Seen.ENDLESS
        copy.put("module.py", MODULE)
        copy.begin("module.py", ["tests"])
        copy.limit_s = 2.0
        assert copy.notices("module.py", harmed("while True: pass"), ["tests"])
        copy.limit_s, copy.spare_s, copy.memory_bytes = 1e6, 1, 1 << 30
        for harm in ("while True: pass", "while True: names = [*names, *names, 'x']"):
            assert copy.notices("module.py", harmed(harm), ["tests"]), harm


def harmed(harm: str) -> str:
    return MODULE.replace("return", f"{harm}\n    return")


@pytest.mark.long
@pytest.mark.parametrize("test", [
    pytest.param(NOTICES.replace("assert", "assert not"), id="a test that fails"),
    pytest.param("import nothing\n", id="a test that cannot be loaded"),
])
def test_tests_that_fail_anyway_notice_nothing(tmp_path: Path, test: str) -> None:
    with a_copy(tmp_path, test) as copy, pytest.raises(LabError, match="fail without any change: tests"):
        copy.begin("module.py", ["tests"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_names_files_that_are_there(row: mutate.Row) -> None:
    assert [path for path in (row.module, *row.tests) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(("names", "message"), [
    pytest.param(["nvrc.nvml.cuont"], "no module 'nvrc.nvml.cuont' in the table; did you mean 'nvrc.nvml.count'?", id="near"),
    pytest.param(["nonsense"], "no module 'nonsense' in the table: see ./dev mutate --list", id="far"),
])
def test_a_module_that_is_not_in_the_table_is_refused(names: Sequence[str], message: str) -> None:
    with pytest.raises(LabError) as refused:
        mutate.chosen(names)
    assert message in str(refused.value)


def test_a_survivor_is_shown_as_the_change_that_nobody_noticed() -> None:
    mutant = Mutant(operator="AddNot", line=2, source=MODULE.replace("!=", "=="))
    assert mutate.changed(ROWS[0], MODULE, mutant).splitlines() == [
        f"  {ROWS[0].module}:2 AddNot", "    -    return len(set(names)) != len(names)",
        "    +    return len(set(names)) == len(names)"]


def test_figures_count_what_was_noticed() -> None:
    survivor = Mutant(operator="AddNot", line=2, source="")
    figures = mutate.Figures(row=ROWS[0], mutants=20, survivors=(survivor,))
    assert str(figures).split() == ["nvrc.params.values", "19", "of", "20", "noticed,", "95.0", "%"]


def recorded(page: str) -> list[tuple[str, int, int]]:
    return [(name, int(mutants), int(noticed))
            for name, mutants, noticed in re.findall(r"^\| `([a-z_.0-9]+)` \| (\d+) \| (\d+) \| \d{4}-\d\d-\d\d \|$", page, re.MULTILINE)]


def test_the_page_of_figures_names_modules_of_the_table_each_above_the_bar() -> None:
    page = (ROOT / "docs/mutation.md").read_text(encoding="utf-8")
    rows = recorded(page)
    assert len(rows) == page.count("\n| `") > 0
    assert [name for name, _, _ in rows] == [row.name for row in ROWS]
    assert [row for row in rows if not BAR_PERCENT <= 100 * row[2] / row[1] <= 100] == []
