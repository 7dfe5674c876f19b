# SPDX-License-Identifier: Apache-2.0
"""A YAML file as a frozen dataclass, strictly: the types of the fields are the schema.

A field with a default may be absent, no other key may be there, and every mistake is reported with its line and key.
Words are taken as they are written, so `off` is a word where a word is due. Nothing here knows what a scenario is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin, get_type_hints

from nvrc.vocabulary.nearmiss import closest

if TYPE_CHECKING:
    from yaml import Node

T = TypeVar("T")
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


class RecordError(ValueError):
    """Every mistake of one file, each as `line N: key: what`."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class _Bad:
    problems: tuple[str, ...]


def read_record(kind: type[T], text: str) -> T:
    node = _parse(text)
    if node is None:
        raise RecordError(("the file is empty",))
    value = _build(kind, node, "")
    if isinstance(value, kind):
        return value
    raise RecordError(tuple(_problems([value])))


def _parse(text: str) -> Node | None:
    import yaml  # noqa: PLC0415  (11 ms that only reading a file has to pay)

    try:
        node: Node | None = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        raise RecordError((f"line {line}: not YAML: {err.problem or err.context}",)) from err
    except (yaml.YAMLError, RecursionError) as err:
        raise RecordError((f"not YAML: {' '.join(str(err).split())}",)) from err
    return node


def _build(kind: object, node: Node, where: str) -> object:
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if isinstance(kind, type) and is_dataclass(kind):
        return _build_record(kind, node, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _build_enum(kind, node, where)
    origin: object = get_origin(kind)
    if origin is tuple:
        return _build_tuple(get_args(kind)[0], node, where)
    if origin is Mapping:
        return _build_mapping(get_args(kind)[1], node, where)
    return _build_plain(kind, node, where)


def _build_record(kind: type, node: Node, where: str) -> object:
    pairs = _pairs(node, where)
    if isinstance(pairs, _Bad):
        return pairs
    hints: dict[str, object] = get_type_hints(kind)
    known = {field.name: field.default is MISSING and field.default_factory is MISSING for field in fields(kind)}
    problems = [_unknown(name, key, where, tuple(known)) for name, (key, _) in pairs.items() if name not in known]
    problems += [f"{_line(node)}: {_join(where, name)}: missing" for name, is_due in known.items()
                 if is_due and name not in pairs]
    built = {name: _build(hints[name], value, _join(where, name))
             for name, (_, value) in pairs.items() if name in known}
    problems += _problems(built.values())
    return _Bad(tuple(problems)) if problems else kind(**built)


def _unknown(name: str, key: Node, where: str, known: tuple[str, ...]) -> str:
    near = closest(name, known)
    remedy = f"did you mean {near}?" if near else f"known: {', '.join(known)}"
    return f"{_line(key)}: {_join(where, name)}: unknown key; {remedy}"


def _build_tuple(kind: object, node: Node, where: str) -> object:
    """A single item needs no list around it."""
    items = node.value if _shape(node) == "sequence" else [node]
    built = tuple(_build(kind, item, f"{where}[{index}]") for index, item in enumerate(items))
    problems = tuple(_problems(built))
    return _Bad(problems) if problems else built


def _build_mapping(kind: object, node: Node, where: str) -> object:
    pairs = _pairs(node, where)
    if isinstance(pairs, _Bad):
        return pairs
    built = {name: _build(kind, value, _join(where, name)) for name, (_, value) in pairs.items()}
    problems = tuple(_problems(built.values()))
    return _Bad(problems) if problems else MappingProxyType(built)


def _pairs(node: Node, where: str) -> dict[str, tuple[Node, Node]] | _Bad:
    if _shape(node) != "mapping":
        return _bad(node, where, "expected keys with values")
    names = [str(key.value) for key, _ in node.value]
    twice = [key for at, (key, _) in enumerate(node.value) if names[at] in names[:at]]
    if twice:
        return _Bad(tuple(f"{_line(key)}: {_join(where, key.value)}: twice in the file" for key in twice))
    return dict(zip(names, node.value, strict=True))


def _build_enum(kind: type[Enum], node: Node, where: str) -> object:
    words = {str(member.value): member for member in kind}
    if _shape(node) != "scalar" or node.value not in words:
        near = closest(str(node.value), words) if _shape(node) == "scalar" else None
        return _bad(node, where, f"expected one of {', '.join(words)}", f"; did you mean {near}?" if near else "")
    return words[node.value]


def _build_plain(kind: object, node: Node, where: str) -> object:
    if _shape(node) != "scalar":
        return _bad(node, where, "expected one value")
    word = str(node.value)
    if kind is str:
        return word
    if kind is bool:
        return _BOOLEANS[word.lower()] if word.lower() in _BOOLEANS else _bad(node, where, "expected true or false")
    try:
        return int(word, 10) if kind is int else float(word)
    except ValueError:
        return _bad(node, where, "expected a whole number" if kind is int else "expected a number")


def _bad(node: Node, where: str, expected: str, remedy: str = "") -> _Bad:
    found = repr(node.value)[:60] if _shape(node) == "scalar" else f"a {_shape(node)}"
    return _Bad((f"{_line(node)}: {where or 'the file'}: {expected}, not {found}{remedy}",))


def _problems(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, _Bad):
            yield from value.problems


def _shape(node: Node) -> str:
    """scalar, sequence or mapping."""
    return type(node).__name__.removesuffix("Node").lower()


def _line(node: Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
