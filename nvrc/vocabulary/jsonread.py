# SPDX-License-Identifier: Apache-2.0
"""JSON text back to the frozen values that jsontext wrote, strictly, for the commands. Never imported at boot.

The types of the dataclass are the schema: every field must be there, nothing else may be, and each value must have
its type. All problems are collected, each with the place where it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from types import UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

from guest_cdi.lean.light import Enum

T = TypeVar("T")
_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


class FormatError(ValueError):
    """What is wrong with a document, one problem per item."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class _Bad:
    problems: tuple[str, ...]


def decode(kind: type[T], data: bytes, schema: int) -> T:
    """A document as `kind`; FormatError if it is not exactly that."""
    document = _parse(data)
    found = document.get("schema") if isinstance(document, dict) else None
    if isinstance(found, int) and found != schema:
        raise FormatError((f"schema {found}: this program reads schema {schema} only",))
    value = _build(kind, document, "")
    if isinstance(value, kind):
        return value
    raise FormatError(tuple(_problems([value])))


def _parse(data: bytes) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise FormatError((f"duplicate key {', '.join(map(ascii, twice))}",))
        return dict(pairs)

    def no_constant(name: str) -> object:
        raise FormatError((f"{name} is no JSON number",))

    try:
        document: object = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except FormatError:
        raise
    except UnicodeDecodeError as err:
        raise FormatError((f"byte {err.start}: not UTF-8, so not JSON",)) from err
    except (ValueError, RecursionError) as err:
        raise FormatError((f"not JSON: {err}",)) from err
    return document


def _build(kind: object, value: object, where: str) -> object:
    if isinstance(kind, type) and is_dataclass(kind):
        return _build_record(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _build_enum(kind, value, where)
    if get_origin(kind) is tuple:
        return _build_tuple(get_args(kind)[0], value, where)
    if isinstance(kind, UnionType):
        (inner,) = (part for part in get_args(kind) if part is not type(None))
        return None if value is None else _build(inner, value, where)
    return _build_plain(kind, value, where)


def _build_record(kind: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        return _bad(where, "expected an object", value)
    hints: dict[str, object] = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    problems = [f"{_join(where, str(name))}: unknown key" for name in value if name not in names]
    built: dict[str, object] = {}
    for name in names:
        if name not in value:
            problems.append(f"{_join(where, name)}: missing")
        else:
            built[name] = _build(hints[name], value[name], _join(where, name))
    problems += _problems(built.values())
    return _Bad(tuple(problems)) if problems else kind(**built)


def _build_tuple(kind: object, value: object, where: str) -> object:
    if not isinstance(value, list):
        return _bad(where, "expected a list", value)
    built = [_build(kind, item, f"{where}[{index}]") for index, item in enumerate(value)]
    problems = tuple(_problems(built))
    return _Bad(problems) if problems else tuple(built)


def _build_enum(kind: type[Enum], value: object, where: str) -> object:
    for member in kind:
        if isinstance(value, str) and member.value == value:
            return member
    return _bad(where, "expected one of " + ", ".join(str(member.value) for member in kind), value)


def _build_plain(kind: object, value: object, where: str) -> object:
    if kind is float and type(value) in (int, float):
        return _build_number(str(value), where)
    for plain, name in _NAMES.items():
        if kind is plain:
            return value if type(value) is plain else _bad(where, f"expected {name}", value)
    raise TypeError(f"no way to read {kind}")


def _build_number(text: str, where: str) -> object:
    number = float(text)
    return number if isfinite(number) else _Bad((f"{where}: number out of range",))


def _problems(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, _Bad):
            yield from value.problems


def _bad(where: str, expected: str, value: object) -> _Bad:
    text = json.dumps(value)
    return _Bad((f"{where or 'document'}: {expected}, not {text if len(text) <= 60 else text[:57] + '...'}",))


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
