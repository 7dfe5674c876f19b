# SPDX-License-Identifier: Apache-2.0
"""The one dialect of what commands print as JSON: `schema` in every document, and what is unset is null.

Reports and statuses are PID 1's own documents with a schema of their own, and are printed as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TextIO

from nvrc.vocabulary.jsontext import encode

SCHEMA = 1


def write_document(out: TextIO, body: object) -> None:
    """`body`: a dataclass or a mapping; its fields follow the schema."""
    out.write(encode({"schema": SCHEMA, **_members(body)}).decode())


def _members(value: object) -> dict[str, object]:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"no document is made of {type(value).__name__}")


def _plain(value: object) -> object:
    if value == "":
        return None
    if isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type)):
        return _members(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
