# SPDX-License-Identifier: Apache-2.0
"""Who waits for which child. PID 1 reaps everything in one place; this remembers whom to tell.

A child may be started on a worker thread and be reaped by the main thread before its pid has been written down, so
the ends of unknown children are kept while one is started, and no longer: pids are given again, and an orphan's end is
not that of whoever gets its pid.
"""

from __future__ import annotations

import _thread
import os
import select

from guest_cdi.lean.light import Callable, NoReturn
from nvrc.machine import linux
from nvrc.vocabulary.signals import signal

Ended = Callable[[int, int], None]
REMEMBERED = 4096  # ends of orphans while a child is started


def nobody(_pid: int, _status: int) -> None:
    """Waits for no child: its end is the reaper's business alone."""


class Children:
    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._waiting: dict[int, Ended] = {}
        self._unclaimed: dict[int, tuple[int, int]] = {}  # how many had ended by then, and the wait status
        self._ends = self._births = 0

    def bear(self, start: Callable[[], int], ended: Ended) -> int:
        """Start a child, whose pid `start` returns; `ended` is called with pid and wait status, at once when it is
        dead already.
        """
        with self._lock:
            self._births += 1
            before = self._ends
        pid = -1
        try:
            pid = start()
        finally:
            status = self._born(pid, before, ended)
        if status is not None:
            ended(pid, status)
        return pid

    def _born(self, pid: int, before: int, ended: Ended) -> int | None:
        """The wait status of one that has ended since."""
        with self._lock:
            at, status = self._unclaimed.pop(pid, (0, 0))
            self._births -= 1
            if not self._births:
                self._unclaimed.clear()
            if at > before:
                return status
            if pid >= 0:
                self._waiting[pid] = ended
        return None

    def died(self, pid: int, status: int) -> None:
        with self._lock:
            ended = self._waiting.pop(pid, None)
            if ended is None and self._births:
                self._ends += 1
                self._unclaimed[pid] = self._ends, status
                if len(self._unclaimed) > REMEMBERED:
                    del self._unclaimed[next(iter(self._unclaimed))]
        if ended is not None:
            ended(pid, status)


def work(task: Callable[[int], None], questions: int, answering: int, output: int,
         confine: Callable[[], None]) -> NoReturn:  # pragma: no cover - in the child only
    """The whole life of a forked worker: it has nothing of PID 1 but a copy of its memory.

    Of the descriptors only its two ends of the conversation stay; what it prints goes to `output`. Signals that PID 1
    blocks for itself end it as they end any process. One with questions does nothing more before the first of them, as
    to give up its rights takes the processor for as long as a step of the boot.
    """
    code = 1
    try:
        os.dup2(questions if questions >= 0 else os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        answering = os.dup2(answering, 3, inheritable=False)
        linux.close_range(4)
        for number in (signal.SIGALRM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if questions >= 0:
            first = select.poll()
            first.register(0, select.POLLIN)
            first.poll()
        confine()
        task(answering)
        code = 0
    except BaseException as err:
        os.write(2, repr(err).encode())
    finally:
        os._exit(code)
