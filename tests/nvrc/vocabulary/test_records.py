# SPDX-License-Identifier: Apache-2.0
"""The reader of declared data: what a field can say beyond its type. The forms have tests of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from nvrc.vocabulary.records import FormatError, Parsed, Written, key, read_record


class ByHand(Parsed):
    by_hand = True


def even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    name: str
    number: Annotated[int, even] = field(default=0, metadata=key("id"))
    size_bytes: Annotated[int, Written(str, len), even] = 2
    limit: int | None = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.limit is not None and self.limit < self.number:
            yield "limit", "is below id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    boxes: tuple[Box, ...]


@pytest.mark.parametrize(("document", "expected"), [
    pytest.param({}, Box(name="given"), id="defaults"),
    pytest.param({"id": 4}, Box(name="given", number=4), id="another-name-and-a-rule"),
    pytest.param({"size_bytes": "four"}, Box(name="given", size_bytes=4), id="written-otherwise"),
    pytest.param({"limit": None}, Box(name="given"), id="null"),
])
def test_what_a_field_can_say(document: object, expected: Box) -> None:
    assert read_record(Box, document, ByHand(), {"name": "given"}) == expected


@pytest.mark.parametrize(("document", "problems"), [
    pytest.param({"id": 3}, ("id: 3 is odd",), id="rule"),
    pytest.param({"size_bytes": "odd"}, ("size_bytes: 3 is odd",), id="rule-behind-written"),
    pytest.param({"size_bytes": 4}, ("size_bytes: expected a string, not 4",), id="type-of-what-is-written"),
    pytest.param({"number": 4}, ("number: unknown key; known: id, size_bytes, limit",), id="by-the-name-in-the-program"),
    pytest.param({"name": "x"}, ("name: unknown key; known: id, size_bytes, limit",), id="given-and-no-part-of-it"),
    pytest.param({"id": 4, "limit": 2}, ("limit: is below id",), id="between-fields"),
    pytest.param({"id": 3, "limit": 2}, ("id: 3 is odd",), id="between-fields-only-of-a-whole-record"),
    pytest.param([], ("document: expected an object, not []",), id="no-record"),
])
def test_every_mistake_has_its_place(document: object, problems: tuple[str, ...]) -> None:
    with pytest.raises(FormatError) as caught:
        read_record(Box, document, ByHand(), {"name": "given"})
    assert caught.value.problems == problems


def test_all_mistakes_at_once_and_where_they_are() -> None:
    with pytest.raises(FormatError) as caught:
        read_record(Shelf, {"boxes": [{"name": "a"}, {"name": 1, "id": 3}, {"idd": 3}]}, ByHand())
    assert caught.value.problems == (
        "boxes[1].name: expected a string, not 1", "boxes[1].id: 3 is odd",
        "boxes[2].idd: unknown key; did you mean id?", "boxes[2].name: missing")


def test_what_a_program_wrote_has_every_field() -> None:
    with pytest.raises(FormatError) as caught:
        read_record(Box, {"name": "a", "id": 2, "size_bytes": "ab"}, Parsed())
    assert caught.value.problems == ("limit: missing",)
