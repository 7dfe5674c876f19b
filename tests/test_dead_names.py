# SPDX-License-Identifier: Apache-2.0
"""No name of the product that only tests use, or nobody: functions, classes, constants, methods, and fields of records.

Names are compared, not objects: one that is used anywhere counts as used everywhere. So nothing here is ever reported
wrongly, and a dead name hides behind a living one of the same spelling.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest

from fakes.sources import ROOT, nodes_of, tracked
from tests.test_architecture import PACKAGES

# What is for readers outside the tree, or for the interpreter, which looks names up.
FOR_OTHERS = {
    "check_text": "guest_cdi as a library", "check_document": "guest_cdi as a library",
    "RULES": "the rows of docs/guest-cdi-validate.md, which a test compares",
    **dict.fromkeys(("open_host", "write_image", "execute", "open_pod", "until_nothing_is_left"), "Kata's own runtime, which only tests/conformance starts"),
    **dict.fromkeys(("set_address", "set_route", "set_policy", "copy_file", "open_broker", "put", "register"), "guest components, which only "
                    "tests/conformance starts"),
    **dict.fromkeys(("pytest_runtestloop", "pytest_runtest_logreport"), "hooks of pytest, which ./dev mutate runs"),
    "capwords": "nvidia-ml-py in the frozen program",
    **dict.fromkeys(("getLogger", "format_exc"), "pyroute2 beside the pod"),
    "accepts": "the ready state as a value: what a report of it tells",
    **dict.fromkeys(("response_class", "http_open", "https_open", "http_error_301", "http_error_303", "http_error_307", "http_error_308"),
                    "urllib and http.client, which look them up"),
    **dict.fromkeys(("object_hook", "object_pairs_hook", "parse_constant", "parse_float", "parse_int"), "_json.make_scanner"),
}


def definitions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    assert isinstance(tree, ast.Module)
    for node in tree.body:
        yield from _defined(node)
        if isinstance(node, ast.ClassDef):
            yield from (found for item in node.body for found in _defined(item))
        if isinstance(node, ast.If):
            yield from (found for item in (*node.body, *node.orelse) for found in _defined(item))


def _defined(node: ast.stmt) -> Iterator[tuple[str, int]]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, node.lineno
        case ast.Assign(targets=targets):
            yield from ((leaf.id, node.lineno) for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name, node.lineno


def uses(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Loads, attributes, and text that could be given to getattr; members of enumerations are made from their values."""
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()) | ast.keyword(arg=str(name)):
                yield name
            case ast.ImportFrom():
                yield from (alias.name for alias in node.names)
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield text
            case ast.ClassDef(bases=bases) if any(isinstance(base, ast.Name) and base.id == "Enum" for base in bases):
                yield from (name for item in node.body for name, _ in _defined(item) if name.isupper())
            case ast.ClassDef(bases=bases) if any("Structure" in ast.unparse(base) for base in bases):
                yield from (name for item in node.body for name, _ in _defined(item))


def is_looked_up(name: str) -> bool:
    return name == "_" or (name.startswith("__") and name.endswith("__"))


def dead(modules: Mapping[str, Sequence[ast.AST]]) -> list[str]:
    """Of modules, by the nodes of each: the first is the module itself."""
    used = {name for nodes in modules.values() for name in uses(nodes)}
    return [f"{file}:{line}: {name}" for file, nodes in modules.items() for name, line in definitions(nodes[0])
            if name not in used and name not in FOR_OTHERS and not is_looked_up(name)]


def product() -> dict[str, Sequence[ast.AST]]:
    files = [*tracked(*(f"{folder}/*.py" for folder in PACKAGES.values())), "dev"]
    return {file: nodes_of(ROOT / file) for file in files}


@pytest.mark.long
def test_every_name_of_the_product_is_used_by_the_product() -> None:
    assert dead(product()) == []


@pytest.mark.long
def test_names_for_others_are_still_there() -> None:
    there = {name for nodes in product().values() for name, _ in definitions(nodes[0])}
    assert set(FOR_OTHERS) <= there


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param("def f():\n    pass", ["m.py:1: f"], id="function"),
    pytest.param("X = 1", ["m.py:1: X"], id="constant"),
    pytest.param("class A:\n    def f(self): ...\n\nprint(A)", ["m.py:2: f"], id="method"),
    pytest.param("class A:\n    size: int\n\nprint(A)", ["m.py:2: size"], id="field"),
    pytest.param("class A:\n    size: int\n\nprint(A(size=1))", [], id="field-that-is-given"),
    pytest.param("def f():\n    pass\n\ngetattr(x, 'f')", [], id="looked-up"),
    pytest.param("class A(Enum):\n    ONE = 'one'\n\nprint(A)", [], id="member"),
])
def test_the_pass_finds_what_it_should(text: str, expected: list[str]) -> None:
    assert dead({"m.py": list(ast.walk(ast.parse(text)))}) == expected
