# SPDX-License-Identifier: Apache-2.0
"""The watch over the NVLink fabric and the lease where daemons have used up what PID 1's loop may watch. Real pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.full_loop import FullLoop
from fakes.system import FakeSystem, bare_guest
from nvrc.nvml.answers import FabricState
from nvrc.nvml.registration import read_registrations
from nvrc.nvml.worker import Worker
from nvrc.params.values import RevokeRule
from nvrc.pid1.fabric_watch import FabricWatch
from nvrc.pid1.lease import Lease
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.jsontext import encode_line
from nvrc.vocabulary.trouble import Trouble

PLACES = {0: ("0000:1a:00.0", "GPU-0")}
GOOD = FabricState(0, 3, 0, 1, "ab" * 16)


class World:
    def __init__(self, system: FakeSystem) -> None:
        self.loop = FullLoop(system.now)
        self.asked, questions = os.pipe()
        answers, self.answering = os.pipe2(os.O_NONBLOCK)
        self.worker = Worker(system, questions, answers, 0)
        self.timers: list[tuple[float, object]] = []
        self.news: list[Trouble] = []
        self.watch = FabricWatch(self.worker, self.loop, read_registrations((GOOD,), PLACES), PLACES, patience_s=5,
                                 later=lambda after_s, act: self.timers.append((after_s, act)), changed=self.news.append)

    def ask(self) -> None:
        self.watch._ask()
        os.read(self.asked, 1 << 16)

    def say(self, data: bytes) -> None:
        os.write(self.answering, data)
        self.loop.turn()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(bare_guest(str(tmp_path)))
    yield found
    found.loop.close()
    found.worker._has_ended = True  # no process is behind it
    found.worker.stop()
    os.close(found.asked)
    os.close(found.answering)


@pytest.mark.parametrize("full_from", ["the question", "the first piece"])
def test_an_answer_in_pieces_is_heard_though_root_may_watch_no_more(world: World, full_from: str) -> None:
    """Code in the worker uses that up itself, answers a part, and PID 1 ended with E_INTERNAL."""
    line = encode_line({"ok": [GOOD._replace(state=1)]})
    world.loop.is_full = full_from == "the question"
    world.ask()
    world.loop.is_full = True
    world.say(line[:20])
    assert world.worker.is_asked
    world.say(line[20:])
    assert not world.worker.is_asked
    assert [one.code for one in world.news] == ["E_FABRIC_STATE"]


def test_the_ready_state_is_taken_back_though_root_may_watch_no_more(world: World) -> None:
    """It was, and told as one that could not be; and the worker stayed."""
    system = world.worker.system
    lease = Lease(RevokeRule.ANY, accepts=True, loop=world.loop, patience_s=5, start=lambda: world.worker, kill=lambda _pid: None,
                  now=system.now, changed=world.news.append)
    world.worker._has_ended = True
    world.loop.is_full = True
    lease.note(make_trouble("E_GPU_LOST", "GPU 0000:1a:00.0: Xid 79, fell off the bus"))
    world.say(encode_line({"ok": [True, False]}))
    assert [one.code for one in world.news] == ["E_READY_REVOKED"]
    assert (lease.is_revoked, world.worker.is_there) == (True, False)
