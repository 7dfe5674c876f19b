# SPDX-License-Identifier: Apache-2.0
"""Memory that runs short: what the kernel tells, once a minute, and on a kernel that tells nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.trouble import told
from nvrc.machine.journal import KERNEL, Line
from nvrc.machine.loop import Loop
from nvrc.pid1.pressure import PAUSE_S, PRESSURE, Memory
from nvrc.vocabulary.trouble import Trouble

KILL = "Out of memory: Killed process 312 (python3) total-vm:1000kB, anon-rss:900kB"


class World:
    def __init__(self) -> None:
        self.clock = 100.0
        self.loop = Loop(lambda: self.clock)
        self.news: list[Trouble] = []
        self.memory = Memory(self.loop, lambda: self.clock, self.news.append)


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.loop.close()


@pytest.mark.parametrize(("uid", "text", "what"), [
    (KERNEL, KILL, "E_MEMORY the kernel killed 'python3' (pid 312), because the guest was out of memory"),
    (0, KILL, ""), (KERNEL, f"Memory cgroup out of memory: {KILL[15:]}", ""), (KERNEL, "Out of memory and no killable processes", ""),
], ids=["a kill", "a program's words", "a container's limit", "another line"])
def test_kills(world: World, uid: int, text: str, what: str) -> None:
    world.memory.hear(Line(0, uid, text))
    assert told(world.news) == ((what,) if what else ())


def test_a_machine_that_thrashes_is_told_once_a_minute(world: World) -> None:
    for _ in range(50):
        world.memory.pressed()
        world.memory.hear(Line(0, KERNEL, KILL))
    assert len(world.news) == 2
    world.clock += PAUSE_S
    world.memory.pressed()
    assert len(world.news) == 3
    assert "give the pod more memory" in world.news[-1].hint


def test_a_kernel_without_pressure_is_no_trouble(world: World, tmp_path: Path) -> None:
    assert not world.memory.watch(str(tmp_path / "none"))
    assert not world.memory.watch(str(tmp_path))
    assert world.news == []


@pytest.mark.skipif(not Path(PRESSURE).exists(), reason="this kernel has no pressure stall information")
def test_this_kernel_takes_the_trigger(world: World) -> None:
    assert world.memory.watch()
    world.loop.turn()
