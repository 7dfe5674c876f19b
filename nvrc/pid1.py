# SPDX-License-Identifier: Apache-2.0
"""PID 1: runs the boot table, hands over to the agent, looks after the VM, and ends it. Never returns.

Whatever goes wrong ends in one line on the console, sync, and power off; never in the kernel's panic about a dead
init. This module joins the parts (loop, journal, executor, life); it decides nothing itself.
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
from nvrc.executor import DEGRADED, FAILED, BootError, DeadlineError, Executor, Record, unforeseen
from nvrc.facts import Facts
from nvrc.journal import Journal
from nvrc.life import Life
from nvrc.linux_system import LinuxSystem
from nvrc.loop import Loop
from nvrc.supervise import ORDERLY, STOP_SIGNALS, Ending
from nvrc.system import System
from nvrc.table import Table
from nvrc.values import LogLevel, ReportTo
from nvrc.verdict import Verdict
from nvrc.wait import ChildEnded

WATCHED = STOP_SIGNALS | {signal.SIGCHLD}
SYNC_DEADLINE_S = 10.0
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
        self.life: Life | None = None
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
        life = self._hand_over(facts)
        self.loop.run(lambda: life.ending is not None)
        life.stop_daemons()
        self.journal.drain()  # the last words are often the ones that matter
        assert life.ending is not None  # noqa: S101 - what the loop above waited for
        return self._say_end(life.ending)

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
        self._miss_daemons(facts)

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
        self._publish(Verdict.FAILED, failure)
        return Ending(code=failure.code, what=failure.detail, hint=failure.hint)

    def _hand_over(self, facts: Facts) -> Life:
        life = Life(self.system, self.loop, self.journal, facts, publish=self._publish_life,
                    is_degraded=any(record.outcome == DEGRADED for record in self.executor.records))
        self.life = life
        assert facts.parameters is not None  # noqa: S101 - the hand-over needs them as well
        mode = facts.mode.value if facts.mode else "cpu"
        devices = facts.cdi.devices if facts.cdi else 0
        self.system.say(console.verdict_ready(self.system.now() - self.started_s, mode, count_gpus(facts), devices,
                                              life.supervisor.agent_pid))
        if facts.parameters.settings.log is LogLevel.TRACE:
            self._tell_imports()
        self._publish(life.verdict)
        for pid, status in self._ended_early:
            life.child_ended(pid, status)
        for number in self._stopped_early:
            life.stop_requested(number)
        return life

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
            if self.life is None:
                self._ended_early.append(child)
            else:
                self.life.child_ended(*child)
        if self.life is None:
            self._miss_daemons(self.executor.facts)

    def _miss_daemons(self, facts: Facts) -> None:
        """A daemon that GPUs depend on and that ends while the boot goes on has failed the step that started it."""
        for running in facts.services:
            for pid, status in self._ended_early:
                if running.is_critical and pid == running.pid:
                    what = f"{running.service.name} {ChildEnded(pid, status).text()} during the boot"
                    raise BootError(Record(name=running.service.step, outcome=FAILED, code="E_SERVICE_LOST",
                                           detail=what, hint=BY_CODE["E_SERVICE_LOST"].remedy))

    def _stop(self, number: int) -> None:
        if self.life is not None:
            self.life.stop_requested(number)
        elif self.executor.facts.agent_pid is None:
            raise StopError(signal.Signals(number).name)
        else:
            self._stopped_early.append(number)  # the agent is running already: it is told once we look after it

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

    def _publish(self, verdict: Verdict, failure: Record | None = None) -> None:
        """Report and status for machines. Never worth the VM: what goes wrong here is said and passed over."""
        is_news = self.verdict is not verdict
        self.verdict = verdict
        try:
            from nvrc import publish

            document = publish.write(self.system, self.executor, started_s=self.started_s, verdict=verdict,
                                     journal=self.journal, life=self.life, failure=failure)
        except Exception as err:
            self.system.say(console.warning_line(f"no report below {paths.RUN}: {unforeseen(err)}"))
            return
        parameters = self.executor.facts.parameters
        if is_news and parameters is not None and parameters.settings.report is ReportTo.CONSOLE:
            for line in console.report_lines(document):
                self.system.say(line)

    def _publish_life(self, verdict: Verdict) -> None:
        """The status alone: the report is about the boot."""
        self.verdict = verdict
        try:
            from nvrc import publish

            publish.write_status(self.system, self.executor, verdict=verdict, journal=self.journal, life=self.life)
        except Exception as err:
            self.system.say(console.warning_line(f"no status below {paths.RUN}: {unforeseen(err)}"))


def count_gpus(facts: Facts) -> int:
    """Those that are attached; on the bus, where nothing attaches them."""
    if facts.ledger is not None:
        return sum(1 for record in facts.ledger if not record.code)
    return len(facts.topology.gpus) if facts.topology else 0


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
