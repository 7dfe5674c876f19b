# SPDX-License-Identifier: Apache-2.0
"""The shape of the repository: who imports whom, how long a module is, what every file carries, what no file names."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nvrc_lab.tiers import LINTED, TYPED

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"nvrc": "nvrc", "guest_cdi": "guest_cdi", "nvrc_build": "build/nvrc_build", "nvrc_lab": "qemu-tests/nvrc_lab"}
OURS = frozenset(PACKAGES)

# The tables of nvrc that the build machine may read: names, paths, grammar and documents, never what runs in the guest.
TABLES_OF_NVRC = frozenset({"nvrc.boot", "nvrc.console", "nvrc.critical_path", "nvrc.errors", "nvrc.nearmiss",
                            "nvrc.param_table", "nvrc.params", "nvrc.paths", "nvrc.report"})


@dataclass(frozen=True)
class Rule:
    """`ours`: our packages or modules that may be imported. `lazily`: others, inside functions only. `freely`: anywhere."""

    ours: frozenset[str]
    lazily: frozenset[str] = frozenset()
    freely: frozenset[str] | None = frozenset()  # None: anything that is not ours


RULES = {
    "nvrc": Rule(ours=frozenset({"nvrc", "guest_cdi"}), lazily=frozenset({"pynvml"})),
    "guest_cdi": Rule(ours=frozenset({"guest_cdi"}), lazily=frozenset({"pynvml", "yaml"})),
    "nvrc_build": Rule(ours=frozenset({"nvrc_build"}) | TABLES_OF_NVRC, freely=None),
    "nvrc_lab": Rule(ours=frozenset({"nvrc_lab", "nvrc_build"}) | TABLES_OF_NVRC,
                     freely=frozenset({"qemu", "pytest", "yaml", "jsonschema"})),
}
# The first file of the frozen program: it runs in the guest, and only lies with the factory that freezes it.
ENTRY = "build/nvrc_build/frozen/entry.py"

# Longer than a module should be, because it is one table and its rows.
LENGTH_LIMIT = 300
LONG_TABLES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    name: str
    at_top: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


def tracked(*patterns: str) -> list[str]:
    """Files that are, or are about to be, in git, as far as they are in the work tree."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({name for name in listed if name and (ROOT / name).is_file()})


def imports_of(file: str, text: str) -> Iterator[Import]:
    """Every import of a module; of our own packages down to the module, of others the top name."""
    yield from _imports(file, ast.parse(text), at_top=True)


def _imports(file: str, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(file, child.lineno, alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            assert child.level == 0, f"{file}:{child.lineno}: a relative import; write the full name"
            names = [f"{module}.{alias.name}" for alias in child.names] if module in OURS else [module]
            yield from (Import(file, child.lineno, name, at_top) for name in names)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(child)
            yield from _imports(file, child, at_top=at_top and not inside)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_allowed(found: Import, rule: Rule) -> bool:
    top = found.name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if top in OURS:
        return top in rule.ours or any(found.name == name or found.name.startswith(f"{name}.") for name in rule.ours)
    return rule.freely is None or top in rule.freely or (top in rule.lazily and not found.at_top)


def forbidden(package: str, file: str, text: str) -> list[str]:
    return [str(found) for found in imports_of(file, text) if not is_allowed(found, RULES[package])]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_arrow_is_allowed(package: str) -> None:
    files = [name for name in tracked(f"{PACKAGES[package]}/*.py") if name != ENTRY]
    assert files
    assert [arrow for name in files for arrow in forbidden(package, name, (ROOT / name).read_text())] == []


ARROWS = {
    "PID 1 imports no package": ("nvrc", "import pynvml", ["x:1 imports pynvml"]),
    "nor the factory": ("nvrc", "def f():\n    from nvrc_build import tree", ["x:2 imports nvrc_build.tree"]),
    "nor the lab": ("nvrc", "import nvrc_lab.console", ["x:1 imports nvrc_lab.console"]),
    "but may do it late": ("nvrc", "def f():\n    import pynvml", []),
    "or for types": ("nvrc", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pynvml", []),
    "and never what is not frozen": ("nvrc", "def f():\n    import psutil", ["x:2 imports psutil"]),
    "and never yaml": ("nvrc", "def f():\n    import yaml", ["x:2 imports yaml"]),
    "guest_cdi stands alone": ("guest_cdi", "from nvrc import paths", ["x:1 imports nvrc.paths"]),
    "guest_cdi reads yaml late": ("guest_cdi", "import yaml", ["x:1 imports yaml"]),
    "the factory reads tables": ("nvrc_build", "from nvrc import paths\nfrom nvrc.errors import CODES", []),
    "the factory runs no boot": ("nvrc_build", "from nvrc import pid1", ["x:1 imports nvrc.pid1"]),
    "the factory runs no step": ("nvrc_build", "from nvrc.steps import agent", ["x:1 imports nvrc.steps"]),
    "the factory knows no lab": ("nvrc_build", "import nvrc_lab", ["x:1 imports nvrc_lab"]),
    "the lab uses the factory": ("nvrc_lab", "from nvrc_build.cpio import write_cpio", []),
    "the lab runs no init": ("nvrc_lab", "from nvrc.executor import Executor", ["x:1 imports nvrc.executor"]),
    "the lab is no CDI library": ("nvrc_lab", "import guest_cdi", ["x:1 imports guest_cdi"]),
}


@pytest.mark.parametrize(("package", "text", "expected"), ARROWS.values(), ids=ARROWS)
def test_the_rules_say_what_they_mean(package: str, text: str, expected: list[str]) -> None:
    assert forbidden(package, "x", text) == expected


def test_modules_are_short() -> None:
    files = [*tracked("*.py"), "dev"]
    product = [name for name in files if not name.startswith("tests/") and name not in LONG_TABLES]
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in product}
    assert {name: length for name, length in lengths.items() if length > LENGTH_LIMIT} == {}


def test_long_modules_are_still_long() -> None:
    short = [name for name in LONG_TABLES if (ROOT / name).is_file()
             and len((ROOT / name).read_text().splitlines()) <= LENGTH_LIMIT]
    assert short == [], "these need no exception any more"


SOURCES = ("*.py", "*.c", "*.h", "*.S", "*.spec", "Makefile", "*/Kbuild", "dev", ".ci/run")


def test_every_source_file_names_its_licence() -> None:
    files = [name for name in tracked(*SOURCES) if not name.startswith("tests/roots/")]
    assert len(files) > 50
    heads = {name: (ROOT / name).read_text().split("\n", 3)[:2] for name in files}
    assert [name for name, head in heads.items() if not any("SPDX-License-Identifier: " in line for line in head)] == []


# Put together here, so that this file names none of them.
HOSTS = tuple(".".join(parts) for parts in (
    ("deb", "debian", "org"), ("security", "debian", "org"), ("snapshot", "debian", "org"), ("ftp", "debian", "org"),
    ("archive", "ubuntu", "com"), ("security", "ubuntu", "com"), ("pypi", "org"), ("pythonhosted", "org"),
    ("crates", "io"), ("npmjs", "org"), ("proxy", "golang", "org")))
FOLDERS = tuple(f"/{'/'.join(parts)}" for parts in (("work", "main"), ("work", "shared"), ("tmp", "tools"), ("root", ".")))
MENTIONS = re.compile("|".join([*map(re.escape, (*HOSTS, *FOLDERS)), r"(?<![\w.])/" + r"home/[a-z]+/"]))


def test_no_file_names_a_mirror_or_a_path_of_one_machine() -> None:
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {hit[0]}" for hit in MENTIONS.finditer(text)]
    assert found == []


@pytest.mark.parametrize("text", [f"https://{HOSTS[0]}/debian", f"cd {FOLDERS[0]}/x", "open('/" + "home/me/x')"])
def test_mentions_would_be_found(text: str) -> None:
    assert MENTIONS.search(text)


def test_the_packages_of_the_distribution_are_those_of_the_tree() -> None:
    listed = [name for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
              if not name.startswith("nvrc_tree.")]  # what a wheel carries of a checkout: files, no packages
    there = [f"{package}{os.path.dirname(name).removeprefix(folder).replace('/', '.')}"
             for package, folder in PACKAGES.items() for name in tracked(f"{folder}/*__init__.py")]
    assert sorted(listed) == sorted(there)


def test_style_is_checked_where_tools_do_not_look_by_themselves() -> None:
    shown = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files", *LINTED], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.splitlines()
    seen = {os.path.relpath(name, ROOT) for name in shown}
    assert {"build/nvrc_build/pipeline.py", "qemu-tests/nvrc_lab/machine.py", "dev"} <= seen
    assert not any(name.startswith((".venv", "out/")) for name in seen)


SOURCES_OF_MYPY = """
import sys
from mypy.main import process_options
sources, options = process_options(sys.argv[1:])
print(options.disallow_untyped_defs and options.disallow_any_explicit)
print(*(source.path for source in sources), sep="\\n")
"""


def test_types_are_checked_where_tools_do_not_look_by_themselves() -> None:
    told = subprocess.run([sys.executable, "-c", SOURCES_OF_MYPY, *TYPED], cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.splitlines()
    seen = {os.path.relpath(ROOT / name, ROOT) for name in told[1:]}
    assert told[0] == "True"
    assert {"build/nvrc_build/pipeline.py", "qemu-tests/nvrc_lab/machine.py", "nvrc/boot.py", "guest_cdi/spec.py"} <= seen
