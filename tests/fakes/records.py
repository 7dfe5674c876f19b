# SPDX-License-Identifier: Apache-2.0
"""Strategies for records and their enumerations, which hypothesis cannot look into: their signature is computed."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import TypeVar, get_type_hints

from hypothesis import strategies as st

from guest_cdi.lean.light import Enum

T = TypeVar("T")


def records(kind: type[T], **known: st.SearchStrategy[object]) -> st.SearchStrategy[T]:
    """Any record of this kind; fields with a default keep it unless `known` says otherwise, as st.builds does."""
    hints = get_type_hints(kind)
    needed = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    made = {name: _any(hints[name]) for name in needed if name not in known}
    return st.fixed_dictionaries({**made, **known}).map(lambda given: kind(**given))


def _any(hint: type) -> st.SearchStrategy[object]:
    if is_dataclass(hint):
        return records(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(tuple(hint))
    return st.from_type(hint)
