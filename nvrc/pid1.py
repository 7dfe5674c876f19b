# SPDX-License-Identifier: Apache-2.0
"""PID 1: runs the boot table, hands over to the agent, looks after the VM, and ends it. Never returns.

Whatever goes wrong ends in one line on the console, sync, and power off; never in the kernel's panic about a dead
init. This module joins the parts (loop, journal, executor, supervisor); it decides nothing itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from nvrc import console, linux, paths
from nvrc.boot import BOOT
from nvrc.errors import BY_CODE
from nvrc.executor import BootError, DeadlineError, Executor, Record, unforeseen
from nvrc.facts import Facts
from nvrc.journal import Journal
from nvrc.linux_system import LinuxSystem
from nvrc.loop import Loop
from nvrc.supervise import ORDERLY, STOP_SIGNALS, Ending, Supervisor
from nvrc.system import System
from nvrc.table import Table
from nvrc.values import LogLevel, ReportTo
from nvrc.verdict import Verdict

WATCHED = STOP_SIGNALS | {signal.SIGCHLD}
SYNC_DEADLINE_S = 10.0
KILL_DEADLINE_S = 5.0
FORWARDED = {LogLevel.OFF: -1, LogLevel.ERROR: 3, LogLevel.WARN: 4, LogLevel.INFO: 6, LogLevel.DEBUG: 7,
             LogLevel.TRACE: 7}


def main() -> NoReturn:
    """The real thing, on the real machine."""
    run(LinuxSystem(), BOOT)


def run(system: System, table: Table, last: Callable[[], None] = lambda: None) -> NoReturn:
    """From the first mount to the end of the machine. `last` is called when all is said, before the power goes."""
    try:
        Init(system, table).live()
    except BaseException as err:
        system.say(console.verdict_fatal("E_INTERNAL", "pid1", unforeseen(err), BY_CODE["E_INTERNAL"].remedy))
    last()
    end(system)


class StopError(Exception):
    """A stop signal came before there was an agent to stop."""


class Init:
    """One life of PID 1 on one System."""

    def __init__(self, system: System, table: Table) -> None:
        self.system = system
        self.started_s = system.now()
        self.loop = Loop(system.now)
        self.journal = Journal(system)
        self.executor = Executor(system, self.loop, table, finished=self._step_finished, alarm=set_alarm)
        self.supervisor: Supervisor | None = None
        self.verdict = Verdict.BOOTING
        self.warnings_told = 0
        self._ended_early: list[tuple[int, int]] = []
        self._stopped_early: list[int] = []
        system.output = self._watch_output

    def live(self) -> Ending:
        self._take_signals()
        try:
            facts = self.executor.run()
        except BootError as failed:
            return self._boot_failed(failed.record)
        except StopError as stop:
            return self._say_end(Ending(code=ORDERLY, what=f"stopped by {stop} during boot"))
        supervisor = self._hand_over(facts)
        self.loop.run(lambda: supervisor.ending is not None)
        self.journal.drain()  # the last words are often the ones that matter
        assert supervisor.ending is not None  # noqa: S101 - what the line above waited for
        return self._say_end(supervisor.ending)

    # Boot

    def _take_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        signal.signal(signal.SIGALRM, _expire)
        descriptor = linux.signalfd(WATCHED)
        self.loop.watch(descriptor, lambda: self._signals(linux.read_signals(descriptor)))

    def _step_finished(self, record: Record, facts: Facts) -> None:
        self.system.say(console.step_line(record.name, record.outcome, record.seconds, record.detail))
        for text in facts.warnings[self.warnings_told:]:
            self.system.say(console.warning_line(text))
        self.warnings_told = len(facts.warnings)
        self._open_logs(facts)

    def _open_logs(self, facts: Facts) -> None:
        """Serve the journal once its step has opened it, and show what the command line wants to see of it."""
        if facts.journal is not None and facts.journal is not self.journal:
            self.journal = facts.journal
            self.loop.watch(self.journal.log_socket, self.journal.drain)
            self.loop.watch(self.journal.kernel_log, self.journal.read_kernel)
        if facts.parameters is not None:
            self.journal.forward(FORWARDED[facts.parameters.settings.log])

    def _watch_output(self, descriptor: int, name: str) -> None:
        def ready() -> None:
            if not self.journal.read_output(descriptor, name):
                self.loop.unwatch(descriptor)
                os.close(descriptor)

        self.loop.watch(descriptor, ready)

    def _boot_failed(self, failure: Record) -> Ending:
        for line in self.journal.tail():
            self.system.say(console.warning_line(line))
        self.system.say(console.verdict_fatal(failure.code, failure.name, failure.detail, failure.hint))
        self._publish(Verdict.FAILED)
        return Ending(code=failure.code, what=failure.detail, hint=failure.hint)

    def _hand_over(self, facts: Facts) -> Supervisor:
        assert facts.agent_pid is not None and facts.parameters is not None  # noqa: S101 - the table's last step
        settings = facts.parameters.settings
        now = self.system.now()
        supervisor = Supervisor(agent_pid=facts.agent_pid, own_pid_namespace=settings.agent_pidns, started_s=now)
        self.supervisor = supervisor
        mode = facts.mode.value if facts.mode else "cpu"
        gpus = len(facts.topology.gpus) if facts.topology else 0
        self.system.say(console.verdict_ready(now - self.started_s, mode, gpus, 0, facts.agent_pid))
        if settings.log is LogLevel.TRACE:
            self._tell_imports()
        self._publish(Verdict.READY if gpus else Verdict.NO_GPU)
        for pid, status in self._ended_early:
            supervisor.child_ended(pid, status, now)
        for number in self._stopped_early:
            self._stop(number)
        return supervisor

    def _tell_imports(self) -> None:
        """Which modules the boot has loaded up to here: what every boot pays for."""
        names = sorted(sys.modules)
        for start in range(0, len(names), 20):
            self.system.say(f"nvrc: log imported {' '.join(names[start:start + 20])}")

    # Events

    def _signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number != signal.SIGCHLD:
                self._stop(number)
        self._reap()

    def _reap(self) -> None:
        for child in self.system.reap():
            if self.supervisor is None:
                self._ended_early.append(child)
            else:
                self.supervisor.child_ended(*child, self.system.now())

    def _stop(self, number: int) -> None:
        if self.supervisor is None:
            if self.executor.facts.agent_pid is None:
                raise StopError(signal.Signals(number).name)
            self._stopped_early.append(number)  # the agent is running already: it is told once we look after it
        elif self.supervisor.stop_requested(number):
            self._signal_agent(signal.SIGTERM)
            parameters = self.executor.facts.parameters
            patience_s = parameters.settings.timeout_agent_stop_s if parameters else KILL_DEADLINE_S
            self.loop.at(self.system.now() + patience_s, self._kill_agent)

    def _kill_agent(self) -> None:
        if self.supervisor is not None and self.supervisor.stop_overdue():
            self._signal_agent(signal.SIGKILL)
            self.loop.at(self.system.now() + KILL_DEADLINE_S, self.supervisor.give_up)

    def _signal_agent(self, number: int) -> None:
        if self.supervisor is None:
            return
        try:
            self.system.signal(self.supervisor.agent_pid, number)
        except ProcessLookupError:
            pass  # it ended by itself; the reaper is about to tell

    # End

    def _say_end(self, ending: Ending) -> Ending:
        if ending.is_orderly:
            self.system.say(console.end_line(ending.code, ending.what))
        else:
            for line in self.journal.tail():
                self.system.say(console.warning_line(line))
            self.system.say(console.verdict_fatal(ending.code, "supervise", ending.what, ending.advice))
        self._publish(self.verdict if ending.is_orderly else Verdict.FAILED)
        return ending

    def _publish(self, verdict: Verdict) -> None:
        """Report and status for machines. Never worth the VM: what goes wrong here is said and passed over."""
        is_news = self.verdict is not verdict
        self.verdict = verdict
        try:
            from nvrc import publish

            document = publish.write(self.system, self.executor, started_s=self.started_s, verdict=verdict,
                                     journal=self.journal, supervisor=self.supervisor)
        except Exception as err:
            self.system.say(console.warning_line(f"no report below {paths.RUN}: {unforeseen(err)}"))
            return
        parameters = self.executor.facts.parameters
        if is_news and parameters is not None and parameters.settings.report is ReportTo.CONSOLE:
            for line in console.report_lines(document):
                self.system.say(line)


def set_alarm(limit_s: float) -> None:
    """Have SIGALRM break into a quick step that overruns its deadline; 0 takes the alarm back."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)


def _expire(_number: int, _frame: object) -> None:
    raise DeadlineError


def end(system: System) -> NoReturn:
    """Write back what is dirty, then power off; if that is refused, restart; PID 1 itself never exits."""
    signal.setitimer(signal.ITIMER_REAL, SYNC_DEADLINE_S)
    try:
        os.sync()
    except DeadlineError:
        system.say(console.warning_line(f"sync did not finish within {SYNC_DEADLINE_S:g} s"))
    signal.setitimer(signal.ITIMER_REAL, 0)
    for way in (system.power_off, system.restart):
        try:
            way()
        except OSError as err:
            system.say(console.warning_line(f"cannot end the machine: {err.strerror}"))
    while True:
        time.sleep(3600)
