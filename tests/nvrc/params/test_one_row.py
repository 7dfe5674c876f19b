# SPDX-License-Identifier: Apache-2.0
"""A parameter is one field and one row: who reads it, by which name it is printed, and what a new one takes."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from functools import cache, cached_property
from pathlib import Path

import pytest

from fakes.sources import ROOT, nodes_of, walk
from nvrc.boot import BOOT
from nvrc.params.settings import Settings
from nvrc.params.table import PARAMS, Param, asked, row_of
from nvrc.params.values import CountRule, GpuCount

FIELDS = {field.name for field in dataclasses.fields(Settings)}
# Beside the steps: what the modules that read settings outside a step are called in the table.
PLACES = {"pid1/init.py": "boot", "pid1/life.py": "supervise", "pid1/ending.py": "ending", "report/bulletin.py": "verdict"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A module of nvrc, and which of its functions read which field, or name which other function."""

    path: str
    nodes: Sequence[ast.AST]

    @cached_property
    def functions(self) -> Sequence[tuple[str, Sequence[ast.AST]]]:
        """By name, with all that is inside."""
        return [(node.name, walk(node)) for node in self.nodes if isinstance(node, ast.FunctionDef)]

    @cached_property
    def attributes(self) -> Sequence[tuple[str, Set[str]]]:
        """Of each function."""
        return [(name, {node.attr for node in inside if isinstance(node, ast.Attribute)}) for name, inside in self.functions]

    @cached_property
    def asked(self) -> Set[str]:
        return {node.attr for node in self.nodes if isinstance(node, ast.Attribute)}

    @cached_property
    def imported(self) -> Set[tuple[str | None, str]]:
        return {(node.module, each.name) for node in self.nodes if isinstance(node, ast.ImportFrom) for each in node.names}

    def reads(self) -> Iterator[tuple[str, str]]:
        """Function and field, for each `settings.FIELD`, `x.settings.FIELD`, `x._settings.FIELD` and `_settings(x).FIELD`."""
        for name, inside in self.functions:
            for node in inside:
                if isinstance(node, ast.Attribute) and (node.attr in FIELDS or node.attr == "ready_rule") and is_settings(node.value):
                    yield from ((name, field) for field in ({"ready", "ready_state"} if node.attr == "ready_rule" else {node.attr}))

    def uses(self, module: str, function: str) -> bool:
        """Whether it imports a function of a module, or asks facts for one of their answers."""
        if module == "engine/facts.py":
            return function in self.asked
        return (f"nvrc.{module.removesuffix('.py').replace('/', '.')}", function) in self.imported


def is_settings(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        node = node.func
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_") == "settings"


def sources() -> list[Source]:
    base = ROOT / "nvrc"
    return [Source(str(path.relative_to(base)), nodes_of(path)) for path in sorted(base.rglob("*.py"))]


@cache
def readers() -> dict[str, set[str]]:
    """Who reads each field, by the names that the table has. A library's function counts for the steps that name it."""
    modules = sources()
    steps = {f"steps/{step.name.replace('-', '_')}.py": step.name for step in BOOT} | PLACES
    conditions: dict[str, set[str]] = defaultdict(set)
    for step in BOOT:
        conditions[step.when.__name__].add(step.name)
        conditions[step.blocks.__name__].add(step.name)
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for function, field in module.reads():
            if module.path in steps:
                found[field].add(steps[module.path])
            elif module.path == "params/parse.py":
                found[field].add("parameters")
            elif module.path == "engine/conditions.py":
                found[field] |= conditions[function]
            else:
                found[field] |= users_of(module.path, function, modules, steps)
    return found


def users_of(path: str, function: str, modules: list[Source], steps: dict[str, str]) -> set[str]:
    used = {steps[module.path] for module in modules if module.path in steps and module.uses(path, function)}
    for module in (module for module in modules if module.path.startswith("engine/")):
        for name, inner in module.attributes:
            if function in inner and name != function:
                used |= users_of(module.path, name, modules, steps)
    return used


@pytest.mark.long
@pytest.mark.parametrize("row", PARAMS, ids=lambda row: row.name)
def test_the_table_says_who_reads_a_parameter(row: Param) -> None:
    found, told = readers()[row.field], set(row.readers)
    assert told == found


def test_names_and_units_are_those_of_the_row() -> None:
    assert asked("gpus", GpuCount(CountRule.AT_LEAST, 2)) == "nvrc.gpus=min:2"
    assert (row_of("gpu_clock_mhz").name, row_of("gpu_clock_mhz").kind.unit) == ("nvrc.smi.lgc", "MHz")
    units = {"_s": "seconds", "_mhz": "MHz", "_w": "watts", "_bits": "bits", "_port": ""}
    for row in (row for row in PARAMS if row.kind.is_number):
        assert row.kind.unit == next(unit for end, unit in units.items() if row.field.endswith(end))


NAMES = {name for row in PARAMS if not row.is_pattern for name in (row.name, *row.aliases)}
ENDS = tuple(f"{name}=" for name in NAMES)
STARTS = ENDS + tuple(f"{name} " for name in NAMES)
# What begins like a parameter and is none: a file of an image.
OTHERS = {"nvrc.toml", "nvrc.serves"}
_LIKE = re.compile(r"nvrc(?:\.[a-z0-9_]+)+")


def literals(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    docs = {id(node.body[0].value) for node in nodes
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and node.body and isinstance(node.body[0], ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def used_as_data(text: str) -> bool:
    """The name itself, or what a value or a sentence is put to; names inside prose are a reader's."""
    return text in NAMES or text.endswith(ENDS) or text.startswith(STARTS)


@pytest.mark.long
def test_no_name_of_a_parameter_is_a_literal_outside_its_room() -> None:
    found = [f"{module.path}:{line} {text[:60]}" for module in sources() if not module.path.startswith(("params/", "pages/"))
             for line, text in literals(module.nodes) if used_as_data(text)]
    assert found == []


@pytest.mark.long
def test_prose_names_parameters_that_there_are() -> None:
    """Of messages, remedies and help; a name with * or a module of ours is none."""
    wrong = []
    for module in sources():
        if module.path.startswith("pages/"):
            continue
        for line, text in literals(module.nodes):
            for hit in _LIKE.finditer(text):
                name = hit[0].rstrip(".")
                is_module = (ROOT / name.replace(".", "/")).exists() or (ROOT / f"{name.replace('.', '/')}.py").exists()
                is_family = any(known.startswith(name + ".") or known.startswith(name) for known in NAMES)
                if name not in NAMES | OTHERS and not is_module and not is_family:
                    wrong.append(f"{module.path}:{line} {name}")
    assert wrong == ["commands/params.py:28 nvrc.smi.src"] or all(one.endswith("nvrc.smi.src") for one in wrong)


ROW = '''    Param("nvrc.new.thing", "new_thing", BOOLEAN, "agent", DIAGNOSTIC,
          "Try something"),
    # Deadlines
'''


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for package in ("nvrc", "guest_cdi"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "nvrc/params/table.py"
    table.write_text(table.read_text().replace("    # Deadlines\n", ROW, 1))
    return tmp_path


def nvrc(root: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n"
                           "from nvrc.cli import main; sys.exit(main(sys.argv[1:]))", *words],
                          capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_a_new_parameter_is_a_field_and_a_row(copied: Path) -> None:
    settings = copied / "nvrc/params/settings.py"
    settings.write_text(settings.read_text().replace("    strict: bool = False\n", "    strict: bool = False\n    new_thing: bool = False\n", 1))
    assert nvrc(copied, "plan", "--machine", "cpu", "--cmdline", "nvrc.new.thing=on")[::2] == (0, "")
    assert "nvrc.new.thing" in nvrc(copied, "params", "list")[1]
    assert "boots with nvrc.new.thing=on" in nvrc(copied, "params", "check", "nvrc.new.thing=on")[1]


@pytest.mark.long
def test_a_row_without_its_field_is_told_in_a_line(copied: Path) -> None:
    status, _, err = nvrc(copied, "plan", "--machine", "cpu")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "the row nvrc.new.thing has no field new_thing in nvrc/params/settings.py" in err
