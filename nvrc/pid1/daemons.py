# SPDX-License-Identifier: Apache-2.0
"""The daemons once the agent runs: what the end of one means, which come back, and how all are stopped.

A critical daemon that ends leaves the VM degraded, because running work may go on; with nvrc.strict it ends the VM.
The fabric manager and the subnet manager are never started again: their successors would meet GPUs that are set up
already, which takes a reset. nvidia-persistenced holds the only attach of a confidential GPU, so there it is not
started again either; elsewhere it is, once. Helpers come back a few times, each time later. Nothing here raises.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Iterable, dataclass, replace
from nvrc.machine.privileges import hand_out
from nvrc.machine.system import System
from nvrc.machine.wait import ChildEnded
from nvrc.report.status import ServiceRecord, ServiceState
from nvrc.services.lineage import Speaker, introduce
from nvrc.services.table import RULES, SHORTAGES, Importance, Restart, Rule, Running, find_daemon, read_pid
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.signals import signal
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble, remark

ALIVE = (ServiceState.RUNNING, ServiceState.STARTING)
SHORTAGE_S = 10.0  # a container can use up what lacks, and gives it back when it ends

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
    tries: int = 0  # since it last ran for long
    detail: str = ""
    speaker: Speaker | None = None  # who speaks for it, since it was started again
    stale_pid: int | None = None  # of the one before, which its PID file may still name

    @property
    def name(self) -> str:
        return self.running.service.name

    @property
    def title(self) -> str:
        return f"{self.name} ({self.running.about})" if self.running.about else self.name


class Daemons:
    def __init__(self, system: System, running: Iterable[Running], *, is_confidential: bool, is_strict: bool,
                 later: Later, changed: Callable[[Trouble | None], None],
                 restarted: Callable[[str, bool], None] = lambda _name, _is_up: None) -> None:
        self._system = system
        self._is_confidential = is_confidential
        self._is_strict = is_strict
        self._later = later
        self._changed = changed
        self._restarted = restarted  # called when a daemon is started again, and when that one is up
        self._stopping = False
        self.ending: Trouble | None = None
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
        """Who speaks as the daemon of this name, which was started again; None while none of it runs."""
        return next((one.speaker for one in self._all
                     if one.name == name and (one.starter is not None or one.pid is not None)), None)

    def add(self, running: Running) -> None:
        """One more, started after the boot."""
        self._all.append(Watched(running, running.started_pid, running.pid, running.since_s))

    # The end of a process

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is not one of ours."""
        one = self._find(pid)
        if one is None:
            return False
        end = ChildEnded(pid, status)
        if pid == one.starter:
            one.starter = None
        if pid == one.pid or not end.is_success:
            self._ended(one, end)
        elif one.state is ServiceState.STARTING:
            self._is_up(one, find_daemon(self._system, one.running.service))
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
        meaning = next((f": {why}" for code, why in one.running.service.meanings if end.status == code << 8), "")
        one.detail = f"{end.text()} {self._system.now() - one.since_s:.1f} s after its start{meaning}"
        one.pid, one.stale_pid = None, end.pid
        if self._stopping:
            one.state = ServiceState.STOPPED
            self._changed(None)
            return
        rule = self._rule(one)
        if rule.steady_s is not None and self._system.now() - one.since_s >= rule.steady_s:
            one.tries = 0
        if one.tries < rule.most:
            one.state = ServiceState.RESTARTING
            pause_s = rule.first_s * 2 ** one.tries
            self._later(pause_s, lambda: self._restart(one))
            self._changed(_news(one, f"{one.detail}; it is restarted in {pause_s:g} s"))
        else:
            self._give_up(one)

    def _rule(self, one: Watched) -> Rule:
        rule = one.running.service.restart
        return RULES[Restart.NEVER if rule is Restart.UNLESS_CONFIDENTIAL and self._is_confidential else rule]

    def _give_up(self, one: Watched) -> None:
        one.state = ServiceState.FAILED
        what = f"{one.title} {one.detail}"
        if one.running.service.importance is Importance.CRITICAL and self._is_strict:
            self.ending = _lost(one, f"{what}, and nvrc.strict is on")
        self._changed(_lost(one, f"{what}; it will not be restarted"))

    # Starting again

    def _restart(self, one: Watched) -> None:
        if self._stopping:
            one.state = ServiceState.STOPPED
            return
        one.restarts += 1
        one.tries += 1
        one.since_s = self._system.now()
        self._restarted(one.name, False)
        try:
            one.starter = self._system.start(one.running.program)
        except OSError as err:
            self._not_started(one, err)
            return
        one.state = ServiceState.STARTING
        one.speaker = introduce(self._system, one.running.service, one.running.program, one.starter, one.since_s)
        if not one.running.service.pid_file:
            self._is_up(one, one.starter)

    def _not_started(self, one: Watched, err: OSError) -> None:
        """What lacks processes, files or memory was no try: it comes when there are some, as often as it takes."""
        before, one.detail = one.detail, f"cannot be restarted: {err.strerror}"
        if err.errno not in SHORTAGES:
            self._give_up(one)
            return
        one.restarts -= 1
        one.tries -= 1
        self._later(SHORTAGE_S, lambda: self._restart(one))
        if one.detail != before:
            self._changed(_news(one, f"{one.detail}; another try follows every {SHORTAGE_S:g} s"))

    def _is_up(self, one: Watched, pid: int | None) -> None:
        one.pid = None if pid == one.stale_pid else pid
        one.state = ServiceState.RUNNING
        self._changed(_news(one, "was restarted"))
        try:
            hand_out(self._system, one.running.service.privileges, one.running.service.code)
        except NvrcError as err:
            self._changed(_news(one, f"has nothing for other programs: {err.what}"))
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
            one.pid = find_daemon(self._system, one.running.service)
        try:
            if one.pid is None:
                raise ProcessLookupError
            self._system.signal(one.pid, number)
        except OSError:
            one.state = ServiceState.STOPPED


def _news(one: Watched, what: str) -> Trouble:
    return replace(remark(f"{one.title} {what}"), step=AFTER_THE_BOOT, service=one.name)


def _lost(one: Watched, what: str) -> Trouble:
    return make_trouble(one.running.service.lost_code, what, step=AFTER_THE_BOOT, service=one.name)
