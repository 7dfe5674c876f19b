# SPDX-License-Identifier: Apache-2.0
"""guest_cdi.lean.light beside the standard library: whatever is used of both must be the same, down to what goes wrong."""

from __future__ import annotations

import copy
import dataclasses
import enum
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import guest_cdi
from guest_cdi.lean import light

# What these stand for costs a third of a frozen program's start.
HEAVY = {"collections", "copy", "dataclasses", "enum", "functools", "inspect", "re", "typing", "weakref"}


class Pair(light.NamedTuple):
    left: int
    right: str = "r"

    @property
    def both(self) -> str:
        return f"{self.left}{self.right}"

    def text(self) -> str:
        return self.both


class StandardPair(typing.NamedTuple):
    left: int
    right: str = "r"


class Named(light.NamedTuple):
    name: str

    def __str__(self) -> str:
        return f"*{self.name}*"


@light.dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    size: int
    items: tuple[str, ...] = ()
    names: list[str] = light.field(default_factory=list)

    @property
    def is_large(self) -> bool:
        return self.size > 9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StandardBox:
    size: int
    items: tuple[str, ...] = ()
    names: list[str] = dataclasses.field(default_factory=list)


@light.dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    first: int
    second: int = 2
    third: str = ""


@light.dataclass(slots=True)
class Open:
    first: int
    second: int = 2


@dataclasses.dataclass(slots=True)
class StandardOpen:
    first: int
    second: int = 2


class Mood(light.Enum):
    """Of a test."""

    GOOD = "good"
    FAIR = "fair"
    FINE = "good"

    @property
    def is_good(self) -> bool:
        return self is Mood.GOOD

    def says(self) -> str:
        return f"I am {self.value}"


class StandardMood(enum.Enum):
    GOOD = "good"
    FAIR = "fair"
    FINE = "good"


def outcome(call: Callable[[], object]) -> object:
    """What a call gives, or the kind of error that it raises."""
    try:
        return call()
    except (TypeError, AttributeError, ValueError, KeyError) as err:
        return next(kind for kind in (TypeError, AttributeError, ValueError, KeyError) if isinstance(err, kind))


@given(st.lists(st.integers(), max_size=3), st.dictionaries(st.sampled_from(["left", "right", "other"]), st.text()))
def test_named_tuples_are_made_like_the_standard_ones(args: list[int], given_: dict[str, str]) -> None:
    ours, theirs = (outcome(lambda kind=kind: tuple(kind(*args, **given_))) for kind in (Pair, StandardPair))  # type: ignore[misc]
    assert ours == theirs


def test_named_tuples_behave_like_the_standard_ones() -> None:
    ours, theirs = Pair(1, "x"), StandardPair(1, "x")
    assert repr(ours).replace("Pair", "StandardPair") == repr(theirs)
    assert (ours, hash(ours), ours[0], ours.right, tuple(ours)) == (theirs, hash(theirs), theirs[0], theirs.right, tuple(theirs))
    assert (Pair._fields, Pair._field_defaults, Pair.__match_args__) == (
        StandardPair._fields, StandardPair._field_defaults, StandardPair.__match_args__)
    assert (ours._asdict(), ours._replace(left=2)) == (theirs._asdict(), theirs._replace(left=2))
    assert (ours.both, ours.text(), str(Named("n")), Pair.__module__) == ("1x", "1x", "*n*", __name__)
    with pytest.raises(ValueError, match="other") if sys.version_info < (3, 13) else pytest.raises(TypeError, match="other"):
        theirs._replace(other=1)
    with pytest.raises(TypeError, match="other"):
        ours._replace(other=1)
    for one in (ours, theirs):
        with pytest.raises(AttributeError):
            one.left = 5  # type: ignore[misc]
        with pytest.raises(AttributeError):
            one.elsewhere = 5  # type: ignore[attr-defined]
    match ours:
        case Pair(left, right):
            assert (left, right) == (1, "x")


KEYS = st.dictionaries(st.sampled_from(["size", "items", "names", "other"]), st.integers())


@given(st.lists(st.integers(), max_size=2), KEYS)
def test_records_with_keywords_are_made_like_the_standard_ones(args: list[int], given_: dict[str, int]) -> None:
    ours, theirs = (outcome(lambda kind=kind: dataclasses.asdict(kind(*args, **given_))) for kind in (Box, StandardBox))  # type: ignore[misc]
    assert ours == theirs


@given(st.lists(st.integers(), max_size=3), st.dictionaries(st.sampled_from(["first", "second", "third"]), st.integers()))
def test_records_with_positions_are_made_like_the_standard_ones(args: list[int], given_: dict[str, int]) -> None:
    ours, theirs = (outcome(lambda kind=kind: dataclasses.astuple(kind(*args, **given_))) for kind in (Open, StandardOpen))  # type: ignore[misc]
    assert ours == theirs


def test_frozen_records_behave_like_the_standard_ones() -> None:
    ours, theirs = Box(size=1, items=("a",)), StandardBox(size=1, items=("a",))
    assert repr(ours).replace("Box", "StandardBox") == repr(theirs)
    assert (ours == Box(size=1, items=("a",)), ours == Box(size=2), ours == theirs) == (True, False, False)
    assert Box.__slots__ == StandardBox.__slots__ == ("size", "items", "names")
    assert ours.names is not Box(size=1).names
    assert (Box(size=10).is_large, Box.__module__, Box.__name__) == (True, __name__, "Box")
    assert hash(Open) and Open.__hash__ is StandardOpen.__hash__ is None
    for one in (ours, theirs):
        for name in ("size", "elsewhere"):
            with pytest.raises((AttributeError, TypeError)):
                setattr(one, name, 5)
        with pytest.raises(AttributeError):
            del one.size


def test_hashes_follow_the_values() -> None:
    @light.dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int

    assert hash(Point(1, 2)) == hash(Point(1, 2)) and len({Point(1, 2), Point(1, 2), Point(2, 1)}) == 2
    assert Point(y=2, x=1) == Point(1, 2) and hash(Point(y=2, x=1)) == hash(Point(1, 2)) and repr(Point(y=2, x=1)).endswith("x=1, y=2)")


def test_a_frozen_record_gets_all_its_values_at_once_and_shares_none() -> None:
    one = Settled(first=1)
    assert vars(one) == {"first": 1, "second": 2, "third": ""}
    other = light.replace(one, first=2)
    assert (one.first, other.first, Settled(first=1)) == (1, 2, one)


def test_open_records_can_be_changed_and_compare_anew() -> None:
    for kind in (Open, StandardOpen):
        one = kind(1)
        one.second = 5
        assert one == kind(1, 5)
        with pytest.raises(AttributeError):
            one.third = 5  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            hash(one)


def test_replace_is_the_standard_one_for_both_kinds_of_record() -> None:
    for box in (Box(size=1, items=("a",)), StandardBox(size=1, items=("a",))):
        for change in (light.replace, dataclasses.replace):
            assert change(box, size=2) == type(box)(size=2, items=("a",))
            with pytest.raises(TypeError):
                change(box, other=2)


def test_dataclasses_sees_the_fields() -> None:
    assert dataclasses.is_dataclass(Box)
    seen, known = ([(row.name, row.default, row.default_factory) for row in dataclasses.fields(kind)] for kind in (Box, StandardBox))
    assert seen == known
    assert typing.get_type_hints(Box) == typing.get_type_hints(StandardBox)


def test_enumerations_behave_like_the_standard_ones() -> None:
    assert [(one.name, one.value) for one in Mood] == [(one.name, one.value) for one in StandardMood]
    assert len(Mood) == len(StandardMood) == 2
    assert Mood("good") is Mood.GOOD is Mood.FINE is Mood(Mood.GOOD)
    assert repr(Mood.FAIR).replace("Mood", "StandardMood") == repr(StandardMood.FAIR)
    assert str(Mood.FAIR).replace("Mood", "StandardMood") == str(StandardMood.FAIR)
    assert (Mood.GOOD.is_good, Mood.FAIR.says(), Mood.__doc__) == (True, "I am fair", "Of a test.")
    assert Mood.GOOD in Mood and Mood.GOOD != Mood.FAIR and len({Mood.GOOD, Mood.FINE, Mood.FAIR}) == 2
    assert copy.deepcopy(Mood.GOOD) is copy.copy(Mood.GOOD) is Mood.GOOD
    assert isinstance(Mood.GOOD, light.Enum) and isinstance(Mood.GOOD, Mood)
    for kind in (Mood, StandardMood):
        with pytest.raises(ValueError, match="'bad' is not a valid"):
            kind("bad")
        with pytest.raises(AttributeError):
            kind.GOOD = "other"  # type: ignore[misc, assignment]
        with pytest.raises(AttributeError):
            kind.GOOD.value = "other"  # type: ignore[misc]


def test_a_case_that_cannot_be_is_an_error() -> None:
    with pytest.raises(AssertionError, match="'x'"):
        light.assert_never("x")  # type: ignore[arg-type]
    assert light.cast(int, "x") == "x"


def test_a_cache_calls_once_and_forgets_the_oldest() -> None:
    calls = []

    @light.lru_cache(maxsize=2)
    def double(number: int) -> int:
        calls.append(number)
        return number * 2

    assert [double(number) for number in (1, 2, 1, 3, 1, 2)] == [2, 4, 2, 6, 2, 4]
    assert calls == [1, 2, 3, 2]
    assert light.partial(divmod, 7)(2) == (3, 1)


def test_it_loads_nothing_heavy() -> None:
    root = Path(guest_cdi.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import guest_cdi.lean.light; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert not HEAVY & set(loaded.stdout.split())


def test_protocols_are_one_class_that_says_nothing() -> None:
    class Reads(light.Protocol):
        def read(self) -> bytes: ...

    class ReadsAndWrites(Reads, light.Protocol):
        def write(self, data: bytes) -> None: ...

    assert Reads is ReadsAndWrites is light.Protocol
    assert not hasattr(light.Protocol, "read")
