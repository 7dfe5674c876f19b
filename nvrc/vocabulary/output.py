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


def _members(value: object) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"no document is made of {type(value).__name__}")
