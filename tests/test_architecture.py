# SPDX-License-Identifier: Apache-2.0
"""The shape of the repository: who imports whom, how long a module is, what every file carries, what no file names."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest

from fakes.sources import ROOT, nodes_of, tracked, tree_of
from nvrc_lab.commands.tiers import LINTED, TYPED

PACKAGES = {"nvrc": "nvrc", "guest_cdi": "guest_cdi", "nvrc_build": "build/nvrc_build", "nvrc_lab": "qemu-tests/nvrc_lab"}
OURS = frozenset(PACKAGES)

# The rooms of nvrc that the build machine may read: names, paths, grammar and documents, never what runs in the guest.
TABLES_OF_NVRC = frozenset({"nvrc.__version__", "nvrc.boot", "nvrc.vocabulary", "nvrc.params", "nvrc.report"})

# A room may import those before it. What is named here and is no folder is a module of the package's top.
ROOMS = {
    "nvrc": ("vocabulary", "params", "machine", "hardware", "extensions", "confidential", "services", "nvml", "engine", "steps",
             "boot", "report", "hostlogs", "preflight", "beside", "pid1", "commands", "cli", "pages", "__main__"),
    "guest_cdi": ("lean", "errors", "parser", "environment", "hooks", "gpu", "host", "ldcache", "elf", "spec", "versions", "naming",
                  "nvml", "discover", "merge", "generate", "modes", "locate", "bounds", "canonical", "load", "model", "schema", "validate",
                  "render", "oci", "prove", "inject", "report", "cli", "__main__"),
    "nvrc_build": ("ground", "declared", "tree", "sandbox", "supply", "job", "products", "output", "papers", "stages",
                   "pipeline", "kata", "after", "relock", "options", "cli", "__main__"),
    "nvrc_lab": ("ground", "fresh", "mutation", "scenario", "qemu", "watch", "devices", "kit", "agent", "run", "commands", "__main__",
                 "manual"),
}


@dataclass(frozen=True)
class Rule:
    """`ours`: our packages or modules that may be imported. `lazily`: others, inside functions only. `freely`: anywhere."""

    ours: frozenset[str]
    lazily: frozenset[str] = frozenset()
    freely: frozenset[str] | None = frozenset()  # None: anything that is not ours


RULES = {
    "nvrc": Rule(ours=frozenset({"nvrc", "guest_cdi"}), lazily=frozenset({"pynvml"})),
    # _kernel is part of the frozen program (nvrc_build/products/frozen/kernel.c).
    "guest_cdi": Rule(ours=frozenset({"guest_cdi"}), lazily=frozenset({"pynvml", "yaml"}), freely=frozenset({"_kernel"})),
    "nvrc_build": Rule(ours=frozenset({"nvrc_build"}) | TABLES_OF_NVRC, freely=None),
    "nvrc_lab": Rule(ours=frozenset({"nvrc_lab", "nvrc_build"}) | TABLES_OF_NVRC,
                     freely=frozenset({"qemu", "pytest", "yaml", "jsonschema", "cosmic_ray"})),
}
# Rooms that run in no PID 1, and what they may import inside functions besides.
LAZILY_IN = {"nvrc/preflight/": frozenset({"yaml"}), "nvrc/beside/": frozenset({"psutil", "pyroute2"})}
# The first file of the frozen program, which runs in the guest, and what writes its modules beside those that it freezes.
OF_THE_FROZEN = tuple(f"build/nvrc_build/products/frozen/{name}.py" for name in ("entry", "write"))

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


@cache
def imports_of(file: str) -> tuple[Import, ...]:
    """Every import of a module; of our own packages down to the module, of others the top name."""
    return tuple(_imports(file, tree_of(ROOT / file), at_top=True))


def _imports(file: str, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(file, child.lineno, alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            assert child.level == 0, f"{file}:{child.lineno}: a relative import; write the full name"
            inside = [f"{module}.{alias.name}" for alias in child.names]
            names = list(dict.fromkeys(name if module in OURS or is_module(name) else module for name in inside))
            yield from (Import(file, child.lineno, name, at_top) for name in names)
        elif not isinstance(child, ast.expr):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(child)
            yield from _imports(file, child, at_top=at_top and not inside)


def is_module(name: str) -> bool:
    """Whether a dotted name of ours is a module or a package of the tree."""
    package, _, rest = name.partition(".")
    if package not in OURS or not rest:
        return False
    path = ROOT / PACKAGES[package] / rest.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_allowed(found: Import, rule: Rule) -> bool:
    top = found.name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if top in OURS:
        return top in rule.ours or any(found.name == name or found.name.startswith(f"{name}.") for name in rule.ours)
    return rule.freely is None or top in rule.freely or (top in rule.lazily and not found.at_top)


def forbidden(package: str, file: str, imports: Iterable[Import]) -> list[str]:
    also = next((names for folder, names in LAZILY_IN.items() if file.startswith(folder)), frozenset[str]())
    rule = replace(RULES[package], lazily=RULES[package].lazily | also)
    return [str(found) for found in imports if not is_allowed(found, rule)]


@pytest.mark.long
@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_arrow_is_allowed(package: str) -> None:
    files = [name for name in tracked(f"{PACKAGES[package]}/*.py") if name not in OF_THE_FROZEN]
    assert files
    assert [arrow for name in files for arrow in forbidden(package, name, imports_of(name))] == []


ARROWS = {
    "PID 1 imports no package": ("nvrc", "import pynvml", ["x:1 imports pynvml"]),
    "nor the factory": ("nvrc", "def f():\n    from nvrc_build import tree", ["x:2 imports nvrc_build.tree"]),
    "nor the lab": ("nvrc", "import nvrc_lab.watch.console", ["x:1 imports nvrc_lab.watch.console"]),
    "but may do it late": ("nvrc", "def f():\n    import pynvml", []),
    "or for types": ("nvrc", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pynvml", []),
    "and never what is not frozen": ("nvrc", "def f():\n    import psutil", ["x:2 imports psutil"]),
    "and never yaml": ("nvrc", "def f():\n    import yaml", ["x:2 imports yaml"]),
    "guest_cdi stands alone": ("guest_cdi", "from nvrc.vocabulary import paths", ["x:1 imports nvrc.vocabulary.paths"]),
    "guest_cdi reads yaml late": ("guest_cdi", "import yaml", ["x:1 imports yaml"]),
    "the factory reads tables": ("nvrc_build", "from nvrc.vocabulary import paths\nfrom nvrc.vocabulary.errors import CODES", []),
    "the factory runs no boot": ("nvrc_build", "from nvrc.pid1 import main", ["x:1 imports nvrc.pid1.main"]),
    "the factory runs no step": ("nvrc_build", "from nvrc.steps import agent", ["x:1 imports nvrc.steps.agent"]),
    "the factory knows no lab": ("nvrc_build", "import nvrc_lab", ["x:1 imports nvrc_lab"]),
    "the lab uses the factory": ("nvrc_lab", "from nvrc_build.tree.cpio import write_cpio", []),
    "the lab runs no init": ("nvrc_lab", "from nvrc.engine.executor import Executor", ["x:1 imports nvrc.engine.executor"]),
    "the lab is no CDI library": ("nvrc_lab", "import guest_cdi", ["x:1 imports guest_cdi"]),
}


@pytest.mark.parametrize(("package", "text", "expected"), ARROWS.values(), ids=ARROWS)
def test_the_rules_say_what_they_mean(package: str, text: str, expected: list[str]) -> None:
    assert forbidden(package, "x", _imports("x", ast.parse(text), at_top=True)) == expected


def room_of(name: str) -> str:
    """The room of a dotted name, or of a file of a package's folder."""
    return name.split(".")[1] if "." in name else ""


def upward(package: str) -> list[str]:
    """Imports of a room that stands above, at the top of a module or inside a function or for types: all count."""
    folder, order = PACKAGES[package], ROOMS[package]
    found = []
    for file in tracked(f"{folder}/*.py"):
        inside = file.removeprefix(f"{folder}/").removesuffix(".py").split("/")[0]
        if file in OF_THE_FROZEN or inside == "__init__":
            continue
        for arrow in imports_of(file):
            name = room_of(arrow.name)
            if arrow.name.partition(".")[0] == package and name in order and order.index(name) > order.index(inside):
                found.append(str(arrow))
    return found


@pytest.mark.long
@pytest.mark.parametrize("package", PACKAGES)
def test_a_room_imports_only_those_below_it(package: str) -> None:
    assert upward(package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_and_module_of_a_package_has_its_place_in_the_order(package: str) -> None:
    files = [name.removeprefix(f"{PACKAGES[package]}/") for name in tracked(f"{PACKAGES[package]}/*.py") if name not in OF_THE_FROZEN]
    assert {name.split("/")[0].removesuffix(".py") for name in files} - {"__init__"} == set(ROOMS[package])


def circles(package: str) -> list[list[str]]:
    """Modules that import each other in a ring, by imports of every kind."""
    folder = PACKAGES[package]
    arrows: dict[str, set[str]] = {}
    for file in tracked(f"{folder}/*.py"):
        name = f"{package}.{file.removeprefix(f'{folder}/').removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
        found = {arrow.name for arrow in imports_of(file) if arrow.name.startswith(package)}
        arrows[name] = found - {name}
    return [ring for ring in rings(arrows) if len(ring) > 1]


def rings(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected parts of a graph: everything that reaches everything else in it."""
    reach: dict[str, set[str]] = {}
    for name in arrows:
        seen, todo = set[str](), [name]
        while todo:
            for other in arrows.get(todo.pop(), set()) - seen:
                seen.add(other)
                todo.append(other)
        reach[name] = seen
    parts = {tuple(sorted(other for other in arrows if other in reach[name] and name in reach[other])) for name in arrows}
    return sorted(list(part) for part in parts if part)


@pytest.mark.long
@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    assert circles(package) == []


def test_a_circle_would_be_found() -> None:
    assert rings({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_modules_are_short() -> None:
    files = [*tracked("*.py"), "dev"]
    product = [name for name in files if not name.startswith("tests/") and name not in LONG_TABLES]
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in product}
    assert {name: length for name, length in lengths.items() if length > LENGTH_LIMIT} == {}


def test_long_modules_are_still_long() -> None:
    short = [name for name in LONG_TABLES if (ROOT / name).is_file()
             and len((ROOT / name).read_text().splitlines()) <= LENGTH_LIMIT]
    assert short == [], "these need no exception any more"


SOURCES = ("*.py", "*.c", "*.h", "*.S", "*.spec", "Makefile", "*/Kbuild", "dev", ".ci/run", "kubectl/*")


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_style_is_checked_where_tools_do_not_look_by_themselves() -> None:
    shown = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files", *LINTED], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.splitlines()
    seen = {os.path.relpath(name, ROOT) for name in shown}
    assert {"build/nvrc_build/pipeline.py", "qemu-tests/nvrc_lab/qemu/machine.py", "dev"} <= seen
    assert not any(name.startswith((".venv", "out/")) for name in seen)


SOURCES_OF_MYPY = """
import sys
import tomllib
from mypy.main import process_options
sources, options = process_options(sys.argv[1:])
print(options.disallow_untyped_defs and options.disallow_any_explicit)
print(*(source.path for source in sources), sep="\\n")
"""


@pytest.mark.long
def test_types_are_checked_where_tools_do_not_look_by_themselves() -> None:
    told = subprocess.run([sys.executable, "-c", SOURCES_OF_MYPY, *TYPED], cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.splitlines()
    seen = {os.path.relpath(ROOT / name, ROOT) for name in told[1:]}
    assert told[0] == "True"
    assert {"build/nvrc_build/pipeline.py", "qemu-tests/nvrc_lab/qemu/machine.py", "nvrc/boot.py", "guest_cdi/spec.py"} <= seen


# Records that are filled while something runs. Everything else is made whole, once.
CHANGING = {"Arguments", "Sandbox", "Speaker", "Stage", "Watched", "Worker"}


def dataclass_words(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, set[str]]]:
    """Of each dataclass, what it says true of itself."""
    for node in nodes:
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            if ast.unparse(decorator).partition("(")[0] in ("dataclass", "dataclasses.dataclass"):
                words = decorator.keywords if isinstance(decorator, ast.Call) else []
                yield node.name, {str(word.arg) for word in words if ast.unparse(word.value) == "True"}


@pytest.mark.long
@pytest.mark.parametrize("package", ["nvrc", "guest_cdi", "nvrc_build"])
def test_a_dataclass_has_slots_and_is_frozen(package: str) -> None:
    found = [(name, cls, words) for name in tracked(f"{PACKAGES[package]}/*.py")
             for cls, words in dataclass_words(nodes_of(ROOT / name))]
    assert found
    assert [(name, cls) for name, cls, words in found if "slots" not in words] == []
    assert [(name, cls) for name, cls, words in found if "frozen" not in words and cls not in CHANGING] == []


@pytest.mark.parametrize(("text", "words"), [
    ("@dataclass\nclass A: ...", set()),
    ("@dataclass(frozen=True, slots=False)\nclass A: ...", {"frozen"}),
])
def test_the_words_of_a_dataclass_are_read(text: str, words: set[str]) -> None:
    assert list(dataclass_words(ast.walk(ast.parse(text)))) == [("A", words)]
