# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from nvrc.machine.children import REMEMBERED, Children


def test_whoever_waits_is_told_once() -> None:
    children, told = Children(), []
    assert children.born(7, lambda pid, status: told.append((pid, status))) == 7
    children.died(7, 256)
    children.died(7, 512)
    assert told == [(7, 256)]


def test_a_child_that_was_reaped_before_it_was_written_down() -> None:
    children, told = Children(), []
    children.died(7, 256)
    children.born(7, lambda pid, status: told.append((pid, status)))
    assert told == [(7, 256)]


def test_orphans_are_not_remembered_for_ever() -> None:
    children, told = Children(), []
    for pid in range(REMEMBERED + 1):
        children.died(pid, 0)
    children.born(0, lambda pid, status: told.append(pid))
    children.born(1, lambda pid, status: told.append(pid))
    assert told == [1]
