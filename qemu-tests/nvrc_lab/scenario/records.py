# SPDX-License-Identifier: Apache-2.0
"""A YAML file as a frozen dataclass, strictly: the form of YAML for nvrc/vocabulary/records.py.

Every mistake is told with its line and key. Words are taken as they are written, so `off` is a word where a word is
due, and a single item needs no list around it. Nothing here knows what a scenario is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from nvrc.vocabulary.records import Expected, FormatError, Path, dotted, read_record

if TYPE_CHECKING:
    from yaml import Node

T = TypeVar("T")
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


def read_yaml(kind: type[T], text: str) -> T:
    node = _parse(text)
    if node is None:
        raise FormatError(("the file is empty",))
    return read_record(kind, node, YamlForm())


def _parse(text: str) -> Node | None:
    import yaml  # noqa: PLC0415  (11 ms that only reading a file has to pay)

    try:
        node: Node | None = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        raise FormatError((f"line {line}: not YAML: {err.problem or err.context}",)) from err
    except (yaml.YAMLError, RecursionError) as err:
        raise FormatError((f"not YAML: {' '.join(str(err).split())}",)) from err
    return node


class YamlForm:
    """Over YAML's graph of nodes: a value alone does not tell its line, nor that it was a word."""

    by_hand = True

    def pairs(self, node: Node) -> Sequence[tuple[Node, str, Node]]:
        if _shape(node) != "mapping":
            raise Expected("keys with values")
        return [(at, str(at.value), value) for at, value in node.value]

    def items(self, node: Node) -> Sequence[Node]:
        return list(node.value) if _shape(node) == "sequence" else [node]

    def plain(self, kind: object, node: Node) -> object:
        if _shape(node) != "scalar":
            raise Expected("one value")
        word = str(node.value)
        if kind is str:
            return word
        if kind is bool and word.lower() in _BOOLEANS:
            return _BOOLEANS[word.lower()]
        if kind is bool:
            raise Expected("true or false")
        try:
            return int(word, 10) if kind is int else float(word)
        except ValueError as wrong:
            raise Expected("a whole number" if kind is int else "a number") from wrong

    def is_null(self, _node: Node) -> bool:
        return False

    def show(self, node: Node) -> str:
        return repr(node.value)[:60] if _shape(node) == "scalar" else f"a {_shape(node)}"

    def place(self, path: Path, node: Node) -> str:
        return f"line {node.start_mark.line + 1}: {dotted(path) or 'the file'}"


def _shape(node: Node) -> str:
    """scalar, sequence or mapping."""
    return type(node).__name__.removesuffix("Node").lower()
