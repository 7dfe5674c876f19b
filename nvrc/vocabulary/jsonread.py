# SPDX-License-Identifier: Apache-2.0
"""JSON text back to the frozen values that jsontext wrote, strictly, for the commands. Never imported at boot.

Every field must be there, nothing else may be, and each value must have its type; records.py is the reader. A text that
is unset is null there, and was an empty string in older documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from nvrc.vocabulary.records import FormatError, Parsed, read_record

__all__ = ["FormatError", "decode"]

T = TypeVar("T")
Raise = Callable[[Mapping[str, object]], Mapping[str, object]]


def decode(kind: type[T], data: bytes, schema: int, older: Mapping[int, Raise] = MappingProxyType({})) -> T:
    """A document as `kind`; FormatError if it is not exactly that. `older`: what makes one of `schema` of others."""
    document = _parse(data)
    found = document.get("schema") if isinstance(document, dict) else None
    if isinstance(document, dict) and type(found) is int and found in older:
        document = older[found](document)
    elif isinstance(found, int) and found != schema:
        known = " and ".join(map(str, (*older, schema)))
        raise FormatError((f"schema {found}: this program reads schema {known} only",))
    return read_record(kind, document, _Documents())


class _Documents(Parsed):
    def plain(self, kind: object, node: object) -> object:
        return "" if kind is str and node is None else super().plain(kind, node)


def _parse(data: bytes) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found, twice = dict[str, object](), set[str]()
        for name, value in pairs:
            if name in found:
                twice.add(name)
            found[name] = value
        if twice:
            raise FormatError((f"duplicate key {', '.join(map(ascii, sorted(twice)))}",))
        return found

    def no_constant(name: str) -> object:
        raise FormatError((f"{name} is not a JSON number",))

    try:
        document: object = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except FormatError:
        raise
    except UnicodeDecodeError as err:
        raise FormatError((f"byte {err.start}: not UTF-8, so not JSON",)) from err
    except (ValueError, RecursionError) as err:
        raise FormatError((f"not JSON: {err}",)) from err
    return document
