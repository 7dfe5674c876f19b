# SPDX-License-Identifier: Apache-2.0
"""Declared data as frozen values, strictly: the types of a dataclass are the schema, so a new key is one line.

JSON, TOML and YAML are front ends of this reader: a `Form` says how a format holds values and how it names a place. A
field with a default may be absent, no other key may be there, and every mistake of a document is told with its place.
Beyond plain types a field may have

    Annotated[T, rule]            `rule` takes the value and returns it, or raises ValueError in words
    Annotated[T, Written(k, of)]  the document holds a `k`, and the value is `of` that
    field(metadata=key("id"))     another name in the document than in the program
    mistakes(self)                a method of the record: rules between its fields, as pairs of key and what is wrong

For commands and builds. It needs dataclasses and typing, which no boot loads.
"""

from __future__ import annotations

import enum as standard
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from math import isfinite
from types import MappingProxyType, UnionType
from typing import (
    Annotated,
    Generic,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from guest_cdi.lean.light import Enum
from nvrc.vocabulary.nearmiss import closest

T = TypeVar("T")
N = TypeVar("N")
Path: TypeAlias = tuple[str | int, ...]
_KEY = "key"
_BAD = object()
_SHOWN = 60  # characters of a value in a message


class FormatError(ValueError):
    """What is wrong with a document, one problem per item."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """What a field is in the document, and how its value is made of that; ValueError in words where none can be."""

    kind: type[T]
    read: Callable[[T], object]


def key(name: str) -> dict[str, str]:
    """Metadata of a field that a document calls otherwise."""
    return {_KEY: name}


class Expected(ValueError):  # noqa: N818  (what was expected, not what failed)
    """Raised by a form: there is another thing than `what`."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


class Form(Protocol[N]):
    """How a format holds values. A node is whatever its parser makes."""

    @property
    def by_hand(self) -> bool:
        """Then fields with a default may be absent, and an unknown key may be a typing mistake."""

    def pairs(self, node: N, /) -> Sequence[tuple[N, str, N]]:
        """Key's node, key and value of each; Expected where the node is no mapping."""

    def items(self, node: N, /) -> Sequence[N]:
        """Expected where the node is no list."""

    def plain(self, kind: object, node: N, /) -> object:
        """A value of one of the plain types."""

    def is_null(self, node: N, /) -> bool:
        """Whether it stands for None."""

    def show(self, node: N, /) -> str:
        """The node in a message."""

    def place(self, path: Path, node: N, /) -> str:
        """Where it is."""


@runtime_checkable
class Judge(Protocol):
    def mistakes(self) -> Iterator[tuple[str, str]]: ...


def read_record(kind: type[T], node: N, form: Form[N], given: Mapping[str, object] = MappingProxyType({})) -> T:
    """The document as `kind`, with fields that are `given` and no part of it; FormatError with all that is wrong."""
    if not is_dataclass(kind):
        raise TypeError(f"no way to read {kind}")
    reading = _Reading(form)
    try:
        value = reading.record(kind, node, (), given)
    except Expected as wrong:
        value = reading.expected((), node, wrong)
    if reading.problems or not isinstance(value, kind):
        raise FormatError(tuple(reading.problems))
    return value


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: object
    is_due: bool


@cache
def _schema(kind: type) -> Mapping[str, _Field]:
    """Fields by their name in a document."""
    hints: dict[str, object] = get_type_hints(kind, include_extras=True)
    return {one.metadata.get(_KEY, one.name): _Field(
        one.name, hints[one.name], one.default is MISSING and one.default_factory is MISSING) for one in fields(kind)}


class _Reading(Generic[N]):
    """One document on its way to a value, and what was found wrong with it so far."""

    def __init__(self, form: Form[N]) -> None:
        self.form = form
        self.problems: list[str] = []

    def note(self, path: Path, node: N, what: str) -> object:
        self.problems.append(f"{self.form.place(path, node)}: {what}")
        return _BAD

    def expected(self, path: Path, node: N, what: Expected) -> object:
        return self.note(path, node, f"expected {what.what}, not {self.form.show(node)}{what.remedy}")

    def build(self, kind: object, node: N, path: Path) -> object:
        if get_origin(kind) is Annotated:
            return self.annotated(kind, node, path)
        if isinstance(kind, UnionType) or get_origin(kind) is Union:
            inner = next(part for part in get_args(kind) if part is not type(None))
            return None if self.form.is_null(node) else self.build(inner, node, path)
        try:
            return self.of_one_type(kind, node, path)
        except Expected as wrong:
            return self.expected(path, node, wrong)
        except ValueError as wrong:
            return self.note(path, node, str(wrong))

    def of_one_type(self, kind: object, node: N, path: Path) -> object:
        if isinstance(kind, type) and is_dataclass(kind):
            return self.record(kind, node, path)
        if isinstance(kind, type) and _is_enumeration(kind):
            return self.member(kind, node)
        origin: object = get_origin(kind)
        if origin is tuple:
            return self.row(get_args(kind)[0], node, path)
        if origin is Mapping:
            return self.mapping(get_args(kind)[1], node, path)
        return self.form.plain(kind, node)

    def annotated(self, kind: object, node: N, path: Path) -> object:
        inner, *rules = get_args(kind)
        written = next((rule for rule in rules if isinstance(rule, Written)), None)
        value = self.build(written.kind if written else inner, node, path)
        for rule in (one.read if isinstance(one, Written) else one for one in rules):
            if value is _BAD or not callable(rule):
                break
            try:
                value = rule(value)
            except ValueError as wrong:
                value = self.note(path, node, str(wrong))
        return value

    def record(self, kind: type, node: N, path: Path, given: Mapping[str, object] = MappingProxyType({})) -> object:
        known = {name: row for name, row in _schema(kind).items() if row.name not in given}
        before = len(self.problems)
        pairs = self.pairs(node, path)
        names = {name for _, name, _ in pairs}
        for at, name, _ in pairs:
            if name not in known:
                self.note((*path, name), at, _unknown(name, known) if self.form.by_hand else "unknown key")
        for name, row in known.items():
            if name not in names and (row.is_due or not self.form.by_hand):
                self.note((*path, name), node, "missing")
        built = {known[name].name: self.build(known[name].kind, value, (*path, name))
                 for _, name, value in pairs if name in known}
        if len(self.problems) > before:
            return _BAD
        made = kind(**given, **built)
        for name, what in made.mistakes() if isinstance(made, Judge) else ():
            self.note((*path, name) if name else path, node, what)
        return made

    def pairs(self, node: N, path: Path) -> Sequence[tuple[N, str, N]]:
        pairs = self.form.pairs(node)
        seen = set[str]()
        for at, name, _ in pairs:
            if name in seen:
                self.note((*path, name), at, "twice in the file")
            seen.add(name)
        return pairs

    def row(self, kind: object, node: N, path: Path) -> object:
        built = tuple(self.build(kind, item, (*path, index)) for index, item in enumerate(self.form.items(node)))
        return _BAD if _BAD in built else built

    def mapping(self, kind: object, node: N, path: Path) -> object:
        built = {name: self.build(kind, value, (*path, name)) for _, name, value in self.pairs(node, path)}
        return _BAD if _BAD in built.values() else MappingProxyType(built)

    def member(self, kind: type, node: N) -> object:
        words: dict[str, object] = {str(one.value): one for one in kind}  # type: ignore[attr-defined]
        known = ", ".join(words)
        try:
            word = str(self.form.plain(str, node))
        except Expected as wrong:
            raise Expected(f"one of {known}") from wrong
        if word not in words:
            near = closest(word, words)
            raise Expected(f"one of {known}", f"; did you mean {near}?" if near else "")
        return words[word]


def _is_enumeration(kind: type) -> bool:
    return issubclass(kind, (Enum, standard.Enum))


def _unknown(name: str, known: Collection[str]) -> str:
    near = closest(name, known)
    return f"unknown key; did you mean {near}?" if near else f"unknown key; known: {', '.join(known)}"


class Parsed:
    """The form of what a parser has made into Python's own values: mappings, lists and plain ones."""

    by_hand = False
    words: Mapping[object, str] = {str: "a string", int: "a whole number", float: "a number", bool: "true or false",
                                   list: "a list", dict: "an object"}

    def pairs(self, node: object) -> Sequence[tuple[object, str, object]]:
        return [(node, str(name), value) for name, value in self._of(dict, node).items()]

    def items(self, node: object) -> Sequence[object]:
        return self._of(list, node)

    def plain(self, kind: object, node: object) -> object:
        if kind is float and type(node) in (int, float):
            return _finite(str(node))
        if kind not in (str, int, float, bool):
            raise TypeError(f"no way to read {kind}")
        return self._of(kind, node)

    def _of(self, kind: type[T], node: object) -> T:
        if type(node) is kind:
            return node
        raise Expected(self.words[kind])

    def is_null(self, node: object) -> bool:
        return node is None

    def show(self, node: object) -> str:
        try:
            text = json.dumps(node, default=str)
        except RecursionError:  # what reads JSON goes deeper than what writes it
            return "what is nested too deeply"
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN - 3]}..."

    def place(self, path: Path, _node: object, /) -> str:
        return dotted(path) or "document"


def dotted(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("number out of range")
    return number
