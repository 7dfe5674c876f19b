# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

from nvrc.machine.loop import Loop


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.00025
        return self.now_s


def test_timers_fire_in_time_order_and_once() -> None:
    loop, fired = Loop(Clock()), []
    loop.at(0.003, lambda: fired.append("late"))
    loop.at(0.001, lambda: fired.append("early"))
    loop.at(0.001, lambda: fired.append("second"))
    loop.run(lambda: len(fired) == 3)
    assert fired == ["early", "second", "late"]
    loop.close()


def test_readers_are_called_until_they_are_taken_away() -> None:
    loop, got = Loop(Clock()), []
    ready, send = os.pipe()
    loop.watch(ready, lambda: got.append(os.read(ready, 1)))
    os.write(send, b"ab")
    loop.run(lambda: len(got) == 2)
    loop.unwatch(ready)
    os.write(send, b"c")
    loop.turn()
    assert got == [b"a", b"b"]
    os.close(ready)
    os.close(send)
    loop.close()


def test_a_reader_may_be_taken_away_by_another_one_in_the_same_round() -> None:
    loop, got = Loop(Clock()), []
    pipes = [os.pipe(), os.pipe()]

    def only_me(index: int) -> None:
        got.append(index)
        loop.unwatch(pipes[1 - index][0])

    for index, (ready, send) in enumerate(pipes):
        loop.watch(ready, lambda index=index: only_me(index))  # type: ignore[misc]
        os.write(send, b"x")
    loop.turn()
    assert len(got) == 1
    for ready, send in pipes:
        os.close(ready)
        os.close(send)
    loop.close()


def test_a_turn_does_not_wait() -> None:
    loop = Loop(lambda: 5.0)
    loop.at(1000, lambda: None)
    loop.turn()
    loop.close()
