# SPDX-License-Identifier: Apache-2.0
"""YAML to frozen values: what is taken, and every mistake with its line and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import pytest

from nvrc.vocabulary.records import FormatError
from nvrc_lab.scenario.records import read_yaml


class Colour(Enum):
    RED = "red"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart:
    name: str
    wheels: tuple[Wheel, ...] = ()
    words: tuple[str, ...] = ()
    colour: Colour = Colour.RED
    load: float = 1.5
    limit: int | None = None
    is_open: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)


def test_every_kind_of_field() -> None:
    cart = read_yaml(Cart, """
name: on
wheels: [{size: 2}, {size: 3}]
words: single
colour: off
load: 2
limit: 7
is_open: yes
notes: {a: 1, b: off}
""")
    assert cart == Cart(name="on", wheels=(Wheel(size=2), Wheel(size=3)), words=("single",), colour=Colour.OFF, load=2.0,
                        limit=7, is_open=True, notes={"a": "1", "b": "off"})


@pytest.mark.parametrize(("text", "problem"), [
    pytest.param("", "the file is empty", id="empty"),
    pytest.param("name: a: b", "line 1: not YAML: mapping values are not allowed", id="no-yaml"),
    pytest.param("name: \x00", "not YAML: ", id="no-text"),
    pytest.param("- a", "line 1: the file: expected keys with values, not a sequence", id="list"),
    pytest.param("wheels: []", "line 1: name: missing", id="missing"),
    pytest.param("name: a\nwheel: []", "line 2: wheel: unknown key; did you mean wheels?", id="near-miss"),
    pytest.param("name: a\nzzz: 1", "line 2: zzz: unknown key; known: name, wheels", id="unknown"),
    pytest.param("name: a\nname: b", "line 2: name: twice in the file", id="twice"),
    pytest.param("name: [a]", "line 1: name: expected one value, not a sequence", id="list-for-word"),
    pytest.param("name: a\nwheels: [{size: big}]", "line 2: wheels[0].size: expected a whole number, not 'big'", id="no-number"),
    pytest.param("name: a\nload: much", "line 2: load: expected a number, not 'much'", id="no-float"),
    pytest.param("name: a\nis_open: maybe", "line 2: is_open: expected true or false, not 'maybe'", id="no-boolean"),
    pytest.param("name: a\ncolour: reed", "expected one of red, off, not 'reed'; did you mean red?", id="near-word"),
    pytest.param("name: a\ncolour: [red]", "line 2: colour: expected one of red, off, not a sequence", id="list-for-enum"),
    pytest.param("name: a\nnotes: x", "line 2: notes: expected keys with values, not 'x'", id="no-mapping"),
    pytest.param("name: a\nnotes: {b: [1]}", "line 2: notes.b: expected one value", id="mapping-value"),
])
def test_mistakes_name_line_and_key(text: str, problem: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_yaml(Cart, text)
    assert any(problem in one for one in caught.value.problems), caught.value.problems


def test_all_mistakes_at_once() -> None:
    with pytest.raises(FormatError) as caught:
        read_yaml(Cart, "wheels: [{size: a}, {size: 1, colour: red}]\nload: x\n")
    assert len(caught.value.problems) == 4
