# SPDX-License-Identifier: Apache-2.0
"""Life after boot: what an event means for the VM. Decides only; PID 1 carries the decisions out.

The agent's end is the VM's end. A request to stop (SIGTERM, SIGINT, ctrl-alt-del) ends it in order: the agent is
asked, then killed when its time is up; one that cannot hear the question is killed at once. kata-agent powers off by
reboot(2), which inside a PID namespace shows as death by SIGINT (power off, halt) or SIGHUP (restart).
"""

from __future__ import annotations

import os

from guest_cdi.lean.light import TYPE_CHECKING, replace
from nvrc.vocabulary.ending import Ending, Orderly
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.signals import signal, signal_name
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

STOP_OVERDUE: Code = "E_AGENT_STOP"
AGENT_EXIT: Code = "E_AGENT_EXIT"
GAVE_UP = "it gave up: check the agent.* parameters and guest components; agent.log=debug shows how far it got"
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGPWR})


class Supervisor:
    """State of one VM between hand-over and its end."""

    def __init__(self, *, agent_pid: int, own_pid_namespace: bool, started_s: float) -> None:
        self.agent_pid = agent_pid
        self._own_pid_namespace = own_pid_namespace
        self.started_s = started_s
        self._stop_reason = ""
        self._killed = False
        self.ending: Ending | None = None
        self.orphans_reaped = 0

    def child_ended(self, pid: int, status: int, now: float, *, had_sandbox: bool = True, complaint: str = "") -> None:
        """A child was reaped: the agent, with its last complaint before it had a sandbox; or an orphan."""
        if pid != self.agent_pid:
            self.orphans_reaped += 1
        elif self.ending is None:
            self.ending = self._agent_ended(status, now, had_sandbox=had_sandbox)
            if complaint and isinstance(self.ending, Trouble) and self.ending.code == AGENT_EXIT:
                self.ending = explained(self.ending, complaint)

    def stop_requested(self, number: int) -> bool:
        """A signal asked PID 1 to stop; True when this is the first time and the agent has to be told."""
        first = not self._stop_reason
        self._stop_reason = self._stop_reason or f"{signal_name(number)} to PID 1"
        return first and self.ending is None

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked PID 1 to stop, and so waits for the machine's own end."""
        return bool(self._stop_reason)

    def stop_overdue(self) -> bool:
        """The agent had its time after a stop request; True when it has to be killed."""
        self._killed = self.ending is None
        return self._killed

    def give_up(self) -> None:
        """Even a kill did not end the agent in time: the VM ends without it."""
        if self.ending is None:
            self.ending = make_trouble(STOP_OVERDUE, "the agent did not end after SIGKILL", step=AFTER_THE_BOOT)

    def _agent_ended(self, status: int, now: float, *, had_sandbox: bool) -> Ending:
        after = f"{now - self.started_s:.1f} s after its start"
        if self._killed:
            what = f"the agent ignored the request to stop ({self._stop_reason}) and was killed"
            return make_trouble(STOP_OVERDUE, what, step=AFTER_THE_BOOT)
        if self._stop_reason:
            return Orderly(f"stopped by {self._stop_reason}; {tell_status(status)}")
        if os.WIFSIGNALED(status) and self._own_pid_namespace and os.WTERMSIG(status) == signal.SIGINT:
            if not had_sandbox:
                # kata-agent also powers off when it cannot start, and says nothing of the reason.
                what = f"the agent powered off {after}, without ever having had a sandbox"
                return make_trouble(AGENT_EXIT, what, GAVE_UP, step=AFTER_THE_BOOT)
            return Orderly("the agent powered off")
        if os.WIFSIGNALED(status) and self._own_pid_namespace and os.WTERMSIG(status) == signal.SIGHUP:
            return Orderly("the agent asked for a restart; the VM powers off")
        if not self._own_pid_namespace and status == 0:
            return Orderly("the agent exited with status 0")
        return make_trouble(AGENT_EXIT, f"{tell_status(status)} {after}", step=AFTER_THE_BOOT)


def explained(trouble: Trouble, complaint: str) -> Trouble:
    """With the agent's own last error, and what is known about it."""
    from nvrc.services.signatures import explain

    found = explain([complaint])
    told = replace(trouble, what=f"{trouble.what}; its last error: {complaint}")
    return replace(told, code=found.code or trouble.code, hint=found.advice) if found else told


def is_deaf_to(number: int, status: bytes) -> bool:
    """Whether PID 1 of a namespace does not get this signal, by its /proc/PID/status: the kernel drops what it leaves
    to the default. kata-agent does so with SIGTERM."""
    names = (b"SigBlk:", b"SigIgn:", b"SigCgt:")
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(names)]
    return len(masks) == 3 and not any(mask >> (number - 1) & 1 for mask in masks)


def tell_status(status: int) -> str:
    """A wait status of the agent in words."""
    if os.WIFSIGNALED(status):
        core = " (core dumped)" if os.WCOREDUMP(status) else ""
        return f"the agent was killed by {signal_name(os.WTERMSIG(status))}{core}"
    return f"the agent exited with status {os.waitstatus_to_exitcode(status)}"
