# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import threading
from _queue import SimpleQueue
from pathlib import Path

import pytest

from fakes.system import FakeSystem, T, bare_guest
from nvrc.machine.journal import Journal, Line
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.wait import WAITING_BYTES, ChildEnded, Events, OverdueError


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


def line(text: str) -> Line:
    return Line(1, 0, text)


def test_events_come_out_in_their_order_and_time_passes(system: FakeSystem) -> None:
    events = Events(system, 10)
    system.later(4, lambda: events.heard(line("second")))
    system.later(1, lambda: events.ended(7, 0))
    assert events.take() == ChildEnded(7, 0)
    assert system.clock == 101
    assert events.take() == line("second")
    assert (events.waited_s, events.silent_s) == (4, 4)


def test_without_progress_the_deadline_stands(system: FakeSystem) -> None:
    events = Events(system, 10)
    system.later(6, lambda: events.heard(line("noise")))
    system.later(12, lambda: events.heard(line("too late")))
    events.take()
    with pytest.raises(OverdueError, match=r"no progress for 10\.0 s") as caught:
        events.take()
    assert (caught.value.waited_s, caught.value.silent_s) == (10, 10)


def test_progress_starts_the_deadline_anew(system: FakeSystem) -> None:
    events = Events(system, 10)
    for _ in range(3):
        system.later(6, lambda: events.heard(line("a GPU")))
        events.take()
        events.progress()
    with pytest.raises(OverdueError) as caught:
        events.take()
    assert (caught.value.waited_s, caught.value.silent_s) == (28, 10)


def test_what_came_in_time_counts_although_it_is_taken_late(system: FakeSystem) -> None:
    events = Events(system, 10)
    events.heard(line("one"))
    events.heard(line("two"))
    system.clock += 60
    assert [events.take(), events.take()] == [line("one"), line("two")]
    with pytest.raises(OverdueError):
        events.take()


def test_a_flood_does_not_outlast_the_deadline(system: FakeSystem) -> None:
    events = Events(system, 10)
    events.heard(line("0"))
    system.clock += 10
    taken = 0
    with pytest.raises(OverdueError):
        while taken < 100:
            taken += 1
            events.heard(line("noise"))
            events.take()
    assert taken == 3, "the two that were there when time was up, and no third"


def test_progress_after_the_deadline_ends_the_run_out(system: FakeSystem) -> None:
    events = Events(system, 10)
    events.heard(line("a GPU"))
    system.clock += 11
    events.take()
    events.progress()
    system.later(9, lambda: events.heard(line("the next")))
    assert events.take() == line("the next")


def test_last_words_are_waited_for_once(system: FakeSystem) -> None:
    events = Events(system, 10)
    events.heard(line("a"))
    system.later(0.2, lambda: events.heard(line("b")))
    system.later(0.9, lambda: events.heard(line("too late")))
    assert list(events.within(0.5)) == [line("a"), line("b")]
    assert system.clock == 100.5


def test_lines_are_heard_inside_the_block_only(system: FakeSystem) -> None:
    journal = Journal(system)

    def say(text: str) -> None:
        journal._hear(0, 6, text)

    say("before")
    with Events(system, 1, journal) as events:
        say("inside")
    say("after")
    assert events.take() == Line(2, 0, "inside")
    with pytest.raises(OverdueError):
        events.take()


def test_a_flood_that_comes_faster_than_it_is_taken_takes_a_bounded_place_and_hides_no_end(system: FakeSystem) -> None:
    """A daemon that talks without end: nine hundred megabytes in half a minute, in PID 1."""
    events, long = Events(system, 10), line("x" * 4096)
    for _ in range(10_000):
        events.heard(long)
    events.ended(1, 0)
    taken = [events.take() for _ in range(100)]
    events.heard(line("there is room again"))
    taken += events.within(0.5)
    assert 100 < len(taken) <= WAITING_BYTES // len(long.text)
    assert taken[-2:] == [ChildEnded(1, 0), line("there is room again")]


def test_without_a_journal_only_children_are_waited_for(system: FakeSystem) -> None:
    with Events(system, 1) as events:
        events.ended(1, 0)
    assert events.take() == ChildEnded(1, 0)


@pytest.mark.parametrize(("status", "text", "success"), [
    (0, "exited with status 0", True),
    (3 << 8, "exited with status 3", False),
    (int(signal.SIGSEGV) | 0x80, "was killed by SIGSEGV", False),
    (33, "was killed by signal 33", False),
])
def test_ends_are_told_in_words(status: int, text: str, success: bool) -> None:
    end = ChildEnded(5, status)
    assert (end.text(), end.is_success) == (text, success)


def test_the_real_system_waits_for_another_thread() -> None:
    system, queue = LinuxSystem(), SimpleQueue[str]()
    threading.Thread(target=queue.put, args=("said",)).start()
    assert system.wait(queue, 10) == "said"
    assert system.wait(queue, 0) is None
    assert system.wait(queue, -1) is None


@pytest.mark.parametrize(("pause_s", "heard"), [(0.9, 9), (1.1, 0)])
def test_a_flood_is_heard_until_it_is_silent_or_the_patience_is_over(system: FakeSystem, pause_s: float, heard: int) -> None:
    events = Events(system, 8)
    for number in range(1, 20):
        system.later(number * pause_s, lambda: events.heard(line("more")))
    assert len(list(events.until_silent(1.0))) == heard


class Stalled(FakeSystem):
    """Stands still for five seconds in its first wait, in which nobody reads anything."""

    has_stood = False

    def wait(self, queue: SimpleQueue[T], limit_s: float) -> T | None:
        if self.has_stood:
            return super().wait(queue, limit_s)
        self.has_stood = True
        self.clock += 5.0
        return None


def test_a_machine_that_stands_still_is_not_silent(tmp_path: Path) -> None:
    system = Stalled(str(tmp_path))
    events = Events(system, 8)
    system.later(0.2, lambda: events.heard(line("read late")))
    assert [event.text for event in events.until_silent(1.0) if isinstance(event, Line)] == ["read late"]
