# SPDX-License-Identifier: Apache-2.0
"""The alarm that breaks into what overran: SIGALRM as an exception on the main thread."""

from __future__ import annotations

from nvrc.engine.executor import DeadlineError
from nvrc.vocabulary.signals import signal


def set_alarm(limit_s: float) -> None:
    """Have SIGALRM break into a quick step that overruns its deadline; 0 takes the alarm back."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)


def expire(_number: int, _frame: object) -> None:
    raise DeadlineError
