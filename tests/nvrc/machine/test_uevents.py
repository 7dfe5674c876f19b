# SPDX-License-Identifier: Apache-2.0
"""Waiting for hardware: on events and the clock only, with patience that starts anew at every sign of progress."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.uevents import Uevents, wait_until_complete


def machine(root: Path) -> tuple[FakeSystem, list[str]]:
    return FakeSystem(str(root)), ["a", "b", "c"]


def test_what_is_complete_needs_no_events(tmp_path: Path) -> None:
    system = FakeSystem(str(tmp_path))
    assert wait_until_complete(system, lambda: (), 5) == ()
    assert system.effects == []


def test_it_ends_with_the_last_one(tmp_path: Path) -> None:
    system, left = machine(tmp_path)
    system.happenings = [lambda: left.remove("a"), lambda: None, left.clear]
    assert wait_until_complete(system, lambda: tuple(left), 5) == ()
    assert system.effects == ["listen", "unlisten"]
    assert system.clock == 100


def test_what_came_before_the_subscription_is_not_missed(tmp_path: Path) -> None:
    system = FakeSystem(str(tmp_path))
    looks: Iterator[tuple[str, ...]] = iter([("a",), ()])
    assert wait_until_complete(system, lambda: next(looks), 5) == ()
    assert system.clock == 100


def test_patience_runs_from_the_last_progress(tmp_path: Path) -> None:
    system, left = machine(tmp_path)

    def later() -> None:
        system.clock += 4
        left.pop()

    def noise() -> None:
        system.clock += 2

    system.happenings = [later, noise, noise]
    assert wait_until_complete(system, lambda: tuple(left), 5) == ("a", "b")
    assert system.clock == 109
    assert system.effects[-1] == "unlisten"


def test_the_kernels_socket_wakes_after_the_time_given() -> None:
    events = LinuxSystem().listen_uevents()
    events.wait(0)
    events.wait(0.001)
    events.close()


def test_all_events_so_far_wake_once() -> None:
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    events = Uevents(ours)
    for _ in range(3):
        kernel.send(b"add@/devices/x\0ACTION=add\0")
    events.wait(60)
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    events.close()
    kernel.close()
