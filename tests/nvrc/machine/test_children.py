# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest

from nvrc.machine.children import REMEMBERED, Children, Ended

Told = list[tuple[int, int]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def note(told: Told) -> Ended:
    return lambda pid, status: told.append((pid, status))


def start(children: Children, pid: int, *ends: tuple[int, int]) -> Callable[[], int]:
    """A child with this pid, and what is reaped meanwhile."""
    def begin() -> int:
        for end in ends:
            children.died(*end)
        return pid

    return begin


def test_whoever_waits_is_told_once(told: Told, note: Ended) -> None:
    children = Children()
    assert children.bear(start(children, 7), note) == 7
    children.died(7, 256)
    children.died(7, 512)
    assert told == [(7, 256)]


def test_a_child_that_was_reaped_before_it_was_written_down(told: Told, note: Ended) -> None:
    children = Children()
    children.bear(start(children, 7, (7, 256)), note)
    children.died(7, 512)  # of whoever has the pid next
    assert told == [(7, 256)]


def test_an_orphans_end_is_not_that_of_whoever_gets_its_pid(told: Told, note: Ended) -> None:
    children = Children()
    children.died(7, 0)
    children.bear(start(children, 7), note)
    assert told == []
    children.died(7, 256)
    assert told == [(7, 256)]


def test_nor_is_one_that_came_while_another_was_started(told: Told, note: Ended) -> None:
    children = Children()

    def begin() -> int:
        children.died(8, 0)
        children.bear(start(children, 8), note)
        return 7

    children.bear(begin, note)
    assert told == []
    children.died(8, 256)
    children.died(7, 512)
    assert told == [(8, 256), (7, 512)]


def test_one_that_cannot_be_started_leaves_nothing(told: Told, note: Ended) -> None:
    children = Children()

    def begin() -> int:
        children.died(7, 0)
        raise OSError(12, "no memory")

    with pytest.raises(OSError, match="no memory"):
        children.bear(begin, note)
    children.died(9, 0)
    children.bear(start(children, 9), note)
    children.bear(start(children, 7), note)
    assert told == []


def test_orphans_are_not_remembered_for_ever(told: Told, note: Ended) -> None:
    children = Children()
    many = [(pid, 0) for pid in range(REMEMBERED + 1)]
    children.bear(start(children, 0, *many), note)
    children.bear(start(children, 1, *many[1:]), note)
    assert told == [(1, 0)]
