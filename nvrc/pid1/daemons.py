# SPDX-License-Identifier: Apache-2.0
"""The daemons once the agent runs: what the end of one means, which come back, and how all are stopped.

A critical daemon that ends leaves the VM degraded, because running work may go on; with nvrc.strict it ends the VM.
The fabric manager and the subnet manager are never started again: their successors would meet GPUs that are set up
already, which takes a reset. nvidia-persistenced holds the only attach of a confidential GPU, so there it is not
started again either; elsewhere it is, once. Helpers come back a few times, each time later. Nothing here raises.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Iterable, dataclass
from nvrc.machine.system import System
from nvrc.machine.wait import ChildEnded
from nvrc.report.status import ServiceRecord, ServiceState
from nvrc.services.lineage import Speaker
from nvrc.services.table import Importance, Restart, Running, read_pid
from nvrc.vocabulary.ending import Ending
from nvrc.vocabulary.signals import signal

MOST_RESTARTS = {Restart.NEVER: 0, Restart.UNLESS_CONFIDENTIAL: 1, Restart.BOUNDED: 5}
FIRST_PAUSE_S = 1.0
ALIVE = (ServiceState.RUNNING, ServiceState.STARTING)

Later = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class Watched:
    """One daemon's life. `starter` is what was started, as long as it may still go into the background."""

    running: Running
    starter: int | None
    pid: int | None
    since_s: float
    state: ServiceState = ServiceState.RUNNING
    restarts: int = 0
    detail: str = ""
    stale_pid: int | None = None  # of the one before, which its PID file may still name

    @property
    def name(self) -> str:
        return self.running.service.name


class Daemons:
    def __init__(self, system: System, running: Iterable[Running], *, is_confidential: bool, is_strict: bool,
                 later: Later, changed: Callable[[str], None],
                 restarted: Callable[[str, bool], None] = lambda _name, _is_up: None) -> None:
        self._system = system
        self._is_confidential = is_confidential
        self._is_strict = is_strict
        self._later = later
        self._changed = changed
        self._restarted = restarted  # called when a daemon is started again, and when that one is up
        self._stopping = False
        self.ending: Ending | None = None
        self._all = [Watched(one, one.started_pid, one.pid, one.since_s) for one in running]

    @property
    def records(self) -> tuple[ServiceRecord, ...]:
        return tuple(ServiceRecord(name=one.name, state=one.state, pid=one.pid, restarts=one.restarts,
                                   since_s=one.since_s, detail=one.detail) for one in self._all)

    @property
    def is_whole(self) -> bool:
        """Whether every daemon is there, or was told to stop."""
        return all(one.state is not ServiceState.FAILED for one in self._all)

    @property
    def is_any_alive(self) -> bool:
        return any(one.state in ALIVE for one in self._all)

    def speaker(self, name: str) -> Speaker | None:
        """Who speaks as the daemon of this name; None while none of it runs."""
        for one in self._all:
            pid = one.starter or one.pid
            if one.name == name and pid is not None:
                return Speaker(one.running.service, one.running.program, pid, one.since_s)
        return None

    # The end of a process

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is none of ours."""
        one = self._find(pid)
        if one is None:
            return False
        end = ChildEnded(pid, status)
        if pid == one.starter:
            one.starter = None
        if pid == one.pid or not end.is_success:
            self._ended(one, end)
        elif one.state is ServiceState.STARTING:
            self._is_up(one, read_pid(self._system, one.running.service))
        return True

    def _find(self, pid: int) -> Watched | None:
        for one in self._all:
            if pid in (one.pid, one.starter):
                return one
        for one in self._all:  # one whose PID file was not there yet when it was looked for
            if one.pid is None and one.state in ALIVE and read_pid(self._system, one.running.service) == pid:
                one.pid = pid
                return one
        return None

    def _ended(self, one: Watched, end: ChildEnded) -> None:
        one.detail = f"{end.text()} {self._system.now() - one.since_s:.1f} s after its start"
        one.pid, one.stale_pid = None, end.pid
        if self._stopping:
            one.state = ServiceState.STOPPED
            self._changed("")
        elif one.restarts < self._most_restarts(one):
            one.state = ServiceState.RESTARTING
            pause_s = FIRST_PAUSE_S * 2 ** one.restarts
            self._later(pause_s, lambda: self._restart(one))
            self._changed(f"{one.name} {one.detail}; it is started again in {pause_s:g} s")
        else:
            self._give_up(one)

    def _most_restarts(self, one: Watched) -> int:
        rule = one.running.service.restart
        return 0 if rule is Restart.UNLESS_CONFIDENTIAL and self._is_confidential else MOST_RESTARTS[rule]

    def _give_up(self, one: Watched) -> None:
        one.state = ServiceState.FAILED
        what = f"{one.name} {one.detail}"
        if one.running.service.importance is Importance.CRITICAL and self._is_strict:
            self.ending = Ending(code="E_SERVICE_LOST", what=f"{what}, and nvrc.strict is on")
        self._changed(f"E_SERVICE_LOST {what}; it stays away")

    # Starting again

    def _restart(self, one: Watched) -> None:
        if self._stopping:
            one.state = ServiceState.STOPPED
            return
        one.restarts += 1
        one.since_s = self._system.now()
        self._restarted(one.name, False)
        try:
            one.starter = self._system.start(one.running.program)
        except OSError as err:
            one.detail = f"cannot be started again: {err.strerror}"
            self._give_up(one)
            return
        one.state = ServiceState.STARTING
        if not one.running.service.pid_file:
            self._is_up(one, one.starter)

    def _is_up(self, one: Watched, pid: int | None) -> None:
        one.pid = None if pid == one.stale_pid else pid
        one.state = ServiceState.RUNNING
        self._changed(f"{one.name} runs again")
        self._restarted(one.name, True)

    # Stopping

    def stop(self) -> None:
        """Ask all to stop, the last one started first. Their ends come through `child_ended`."""
        self._stopping = True
        for one in reversed(self._all):
            if one.state is ServiceState.RESTARTING:
                one.state = ServiceState.STOPPED
            elif one.state in ALIVE:
                self._signal(one, one.running.service.stop)

    def kill(self) -> None:
        """End those that did not stop in time."""
        for one in self._all:
            if one.state in ALIVE:
                self._signal(one, signal.SIGKILL)

    def _signal(self, one: Watched, number: signal.Signals) -> None:
        if one.pid is None and one.running.service.pid_file:
            one.pid = read_pid(self._system, one.running.service)
        try:
            if one.pid is None:
                raise ProcessLookupError
            self._system.signal(one.pid, number)
        except OSError:
            one.state = ServiceState.STOPPED
