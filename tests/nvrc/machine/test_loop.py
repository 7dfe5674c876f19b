# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

from fakes.full_loop import FullLoop
from nvrc.machine.loop import AGAIN_S, Loop


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


def test_who_cannot_go_on_is_let_alone_for_a_second_whatever_comes() -> None:
    now_s = 10.0
    loop, answers, asked = FullLoop(lambda: now_s), [True, False, False, True, True, True], list[bool]()
    ready, send = os.pipe()

    def serve() -> bool:
        asked.append(answers[len(asked)])
        return asked[-1]

    def turns() -> int:
        for _ in range(2):
            loop.turn()
        return len(asked)

    loop.watch_in_turns(ready, serve)
    os.write(send, b"x")
    assert turns() == 2, "once ready, and once with what is in the way"
    assert turns() == 2
    now_s += AGAIN_S
    assert turns() == 3
    now_s += AGAIN_S
    loop.is_full = True
    assert turns() == 4, "and watched no more, as a daemon has used up what root may watch"
    now_s += AGAIN_S
    loop.is_full = False
    os.read(ready, 1)
    assert turns() == 5
    os.write(send, b"x")
    loop.turn()
    assert len(asked) == 6
    loop.close()
    os.close(ready)
    os.close(send)
