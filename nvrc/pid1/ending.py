# SPDX-License-Identifier: Apache-2.0
"""How the machine ends, and the alarm that ends what overran: SIGALRM as an exception."""

from __future__ import annotations

import os
import time

from guest_cdi.lean.light import Callable, NoReturn
from nvrc.engine.executor import DeadlineError
from nvrc.machine.system import System
from nvrc.vocabulary import console, paths
from nvrc.vocabulary.signals import signal

SYNC_DEADLINE_S = 10.0


def set_alarm(limit_s: float) -> None:
    """Have SIGALRM break into a quick step that overruns its deadline; 0 takes the alarm back."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)


def expire(_number: int, _frame: object) -> None:
    raise DeadlineError


def end(system: System, sleep: Callable[[float], None] = time.sleep) -> NoReturn:
    """Write back what is dirty, then power off, or restart, or crash: PID 1 itself never exits."""
    signal.setitimer(signal.ITIMER_REAL, SYNC_DEADLINE_S)
    try:
        os.sync()
    except DeadlineError:
        system.say(console.warning_line(f"sync did not finish within {SYNC_DEADLINE_S:g} s"))
    signal.setitimer(signal.ITIMER_REAL, 0)
    for name, way in (("power off", system.power_off), ("restart", system.restart),
                      ("crash", lambda: system.write(paths.SYSRQ, b"c"))):
        try:
            way()
        except OSError as err:
            system.say(console.warning_line(f"cannot {name} the machine: {err.strerror}"))
    while True:
        sleep(3600)
