# SPDX-License-Identifier: Apache-2.0
"""Work that may wait in the kernel where no signal reaches it, as for a disk that never answers.

It runs on a thread. One that overruns is left behind, and cannot be ended: the caller ends the machine.
"""

from __future__ import annotations

import _thread

from guest_cdi.lean.light import Callable, TypeVar
from nvrc.machine.wait import OverdueError

DISK_ANSWER_S = 60.0
T = TypeVar("T")


def run_within(limit_s: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises; OverdueError when it does neither in time."""
    done = _thread.allocate_lock()
    done.acquire()
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as err:
            errors.append(err)
        done.release()

    _thread.start_new_thread(run, ())
    if not done.acquire(timeout=limit_s):
        raise OverdueError(limit_s, limit_s)
    if errors:
        raise errors[0]
    return results[0]
