# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import threading
import time

import pytest

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
    loop, answers, asked = Loop(lambda: now_s), [True, False, False, True, True], list[bool]()
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
    os.read(ready, 1)
    now_s += AGAIN_S
    assert turns() == 4, "and watched again"
    os.write(send, b"x")
    loop.turn()
    assert len(asked) == 5
    loop.close()
    os.close(ready)
    os.close(send)


def test_what_epoll_has_no_room_for_is_watched_all_the_same() -> None:
    """Programs that are root in name have used up what root may watch."""
    loop, got = FullLoop(time.monotonic), list[str]()
    (early, to_early), (late, to_late), (full, to_full) = os.pipe(), os.pipe(), os.pipe2(os.O_NONBLOCK)
    loop.watch(early, lambda: got.append(f"early {os.read(early, 1)!r}"))
    loop.is_full = True
    loop.watch(late, lambda: got.append(f"late {os.read(late, 1)!r}"))
    os.write(to_late, b"a")
    loop.serve()
    os.write(to_early, b"b")
    loop.serve()
    assert got == ["late b'a'", "early b'b'"]
    loop.watch(to_full, lambda: got.append("room"), writing=True)
    loop.serve()
    loop.unwatch(to_full)
    loop.unwatch(late)
    os.write(to_late, b"c")
    loop.turn()
    assert got[2:] == ["room"], "and what is watched no more is not waited for"
    loop.watch(late, lambda: got.append("again"))
    loop.unwatch(late)
    began_s = time.monotonic()
    loop.watch(full, lambda: got.append("nothing came"))
    loop.at(time.monotonic() + 0.01, lambda: None)
    loop.serve()
    assert (got[3:], time.monotonic() - began_s >= 0.01) == ([], True)
    loop.close()
    for descriptor in (early, to_early, late, to_late, full, to_full):
        os.close(descriptor)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC])
def test_what_cannot_be_watched_is_refused(number: int) -> None:
    """A file, which is always ready; and what another thread would have watched while the loop waits without it."""
    loop, refused = FullLoop(time.monotonic), list[int]()
    loop.is_full = number == errno.ENOSPC

    def try_it() -> None:
        with open(__file__, "rb") as file:
            try:
                loop.watch(file.fileno(), lambda: None)
            except OSError as err:
                refused.append(err.errno or 0)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join(10)
    assert refused == [number]
    loop.close()
