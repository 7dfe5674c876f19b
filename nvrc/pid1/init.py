# SPDX-License-Identifier: Apache-2.0
"""One life of PID 1: the boot, the hand-over, and the events until there is a reason to end.

Joins the parts (loop, journal, executor, life); decides nothing itself.
"""

from __future__ import annotations

import os
import sys

from guest_cdi.lean.light import TYPE_CHECKING
from nvrc.engine.executor import DEGRADED, RUNNING, BootError, Executor, Record
from nvrc.engine.facts import Facts
from nvrc.engine.table import Table
from nvrc.machine import linux
from nvrc.machine.journal import Journal
from nvrc.machine.loop import Loop
from nvrc.machine.memory import give_back
from nvrc.machine.system import System
from nvrc.params.values import LogLevel
from nvrc.pid1.alarm import expire, set_alarm
from nvrc.pid1.supervise import STOP_SIGNALS
from nvrc.report.bulletin import Bulletin
from nvrc.vocabulary import console, paths
from nvrc.vocabulary.ending import Ending, Orderly
from nvrc.vocabulary.signals import signal, signal_name
from nvrc.vocabulary.verdict import Verdict

if TYPE_CHECKING:
    from nvrc.machine.journal import Line
    from nvrc.pid1.agent_output import AgentOutput
    from nvrc.pid1.daemons import Daemons
    from nvrc.pid1.early import Early
    from nvrc.pid1.life import Life

SPEAKS_BEFORE_S = 0.005  # from a daemon's first words to its first device
WATCHED = STOP_SIGNALS | {signal.SIGCHLD}
FORWARDED = {LogLevel.OFF: -1, LogLevel.ERROR: 3, LogLevel.WARN: 4, LogLevel.INFO: 6, LogLevel.DEBUG: 7,
             LogLevel.TRACE: 7}


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
        self.bulletin = Bulletin(system, self.executor, self.started_s)
        self.life: Life | None = None
        self._agent_output: AgentOutput | None = None
        self.warnings_told = 0
        self._is_timed = False
        self.early: Early | None = None  # where the agent does not wait for the GPUs
        self.signals = -1
        self.ended_early: dict[int, tuple[int, float]] = {}  # nvrc.pid1.ends
        self._stopped_early: list[int] = []
        self._are_others_limited = False
        # Once there is a verdict.
        self.is_over = self.is_hurried = False
        self.closing: Daemons | None = None
        system.output = self._watch_output

    def live(self) -> Ending:
        """Until there is a reason to end; how that is done is the table in nvrc.pid1.ending."""
        try:
            return self._boot_and_live()
        except BootError as failed:
            return self.early.ending if self.early and self.early.ending else failed.trouble
        except StopError as stop:
            return Orderly(f"stopped by {stop} during boot")
        finally:
            self.is_over = True

    def _boot_and_live(self) -> Ending:
        self._watch_signals()
        life = self._hand_over(self.executor.run())
        while (ending := life.ending) is None:
            self.loop.serve()
        return ending

    # Boot

    def _watch_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        signal.signal(signal.SIGALRM, expire)
        self.signals = linux.signalfd(WATCHED)
        self.loop.watch(self.signals, self.take_signals)

    def _step_finished(self, record: Record, facts: Facts) -> None:
        if self.is_over:
            return  # a step that overran: the boot has had its verdict
        self.system.say(console.step_line(record.name, record.outcome, record.seconds, record.detail, record.trouble))
        for trouble in facts.warnings[self.warnings_told:]:
            self.system.say(console.trouble_line(trouble))
        self.warnings_told = len(facts.warnings)
        self._open_logs(facts)
        self._time_boot(facts)
        self._start_early(facts)
        self._miss_daemons(facts)
        if facts.agent_pid is not None and not self._are_others_limited:
            self._limit_others()  # containers may come before the last step has ended

    def _open_logs(self, facts: Facts) -> None:
        """Serve the journal once its step has opened it, and show what the command line wants to see of it."""
        if facts.journal is not None and facts.journal is not self.journal:
            self.journal = facts.journal
            self.loop.watch_in_turns(self.journal.log_socket, self.journal.drain)
            self.loop.watch(self.journal.kernel_log, self.journal.read_kernel)
            self.journal.listen(self._use_wait)
            self._open_console()
        if facts.parameters is not None:
            self.journal.forward(FORWARDED[facts.parameters.settings.log])

    def _use_wait(self, line: Line) -> None:
        """A daemon that speaks is about to wait for its devices, and the boot for it. What comes next gets ready."""
        worker = self.executor.facts.worker
        if worker is None or not line.serial:
            return
        self.journal.unlisten(self._use_wait)

        def get_ready() -> None:
            worker.wake()
            self.executor.load_ahead()

        self.loop.at(self.system.now() + SPEAKS_BEFORE_S, get_ready)

    def _time_boot(self, facts: Facts) -> None:
        """Have the whole boot watched from when its limit is known; only a warning, because every step has its own."""
        if facts.parameters is None or self._is_timed:
            return
        self._is_timed = True
        limit_s = facts.parameters.settings.timeout_boot_s

        def tell_slow() -> None:
            if self.life is not None or self.is_over:
                return
            now = self.system.now()
            running = ", ".join(f"{record.name} for {now - record.start_s:.1f} s" for record in self.executor.records
                                if record.outcome == RUNNING)
            missing = "no agent" if self.executor.facts.agent_pid is None else "not ready"  # it attests beside it
            text = f"{missing} after {limit_s} s (nvrc.timeout.boot); running: {running or 'nothing'}"
            self.executor.warn(text)
            self.warnings_told += 1
            self.system.say(console.warning_line(text))

        self.loop.at(self.started_s + limit_s, tell_slow)

    def _start_early(self, facts: Facts) -> None:
        """From the promise of GPUs on the agent may run beside the boot, and end beside it."""
        if facts.promise is not None and self.early is None:
            from nvrc.pid1.early import Early

            self.early = Early(self.system, self.loop, self.executor,
                               is_over=lambda: self.is_over or self.life is not None)
        if self.early is not None and facts.agent_pid is not None and self.life is None:
            self.early.miss_agent(self.ends_of_boot(), self._agent_output)

    def _watch_output(self, descriptor: int, name: str) -> None:
        def ready() -> None:
            if not self.journal.read_output(descriptor, name):
                self.loop.unwatch(descriptor)
                os.close(descriptor)

        self.loop.watch(descriptor, ready)

    def _open_console(self) -> None:
        """Have the agent's output echoed, if there is a console; else it gets what there is."""
        from nvrc.pid1.agent_output import AgentOutput, open_console

        sink = open_console()

        def echo(source: int) -> None:
            self._agent_output = AgentOutput(self.system, self.loop, source, sink)

        self.system.echo = echo if sink >= 0 else None

    def _hand_over(self, facts: Facts) -> Life:
        from nvrc.pid1.life import Life  # the agent runs already

        if self.early is not None:
            self.early.keep()
        self.bulletin.boot_over()
        life = Life(self.system, self.loop, self.journal, facts, publish=self._publish_life,
                    is_degraded=any(record.outcome == DEGRADED for record in self.executor.records),
                    output=self._agent_output)
        self.life = life
        mode = facts.mode.value if facts.mode else "cpu"
        devices = facts.cdi.devices if facts.cdi else 0
        self.system.say(console.verdict_ready(self.system.now() - self.started_s, mode, count_gpus(facts), devices,
                                              life.supervisor.agent_pid))
        if facts.settings.log is LogLevel.TRACE:
            console.tell_imports(self.system.say, sys.modules)
        self.bulletin.publish(life.verdict, self.journal, life)
        self.bulletin.serve(self.loop, lambda: self.bulletin.live(self.journal, self.life))
        life.watch_memory()
        life.start_metrics(facts)
        if facts.ports is not None and facts.ports.status >= 0:
            self.bulletin.serve_host(self.loop, facts.ports.status, lambda: self.bulletin.live(self.journal, self.life))
        for pid, status in self.ends_of_boot():
            life.child_ended(pid, status)
        self.ended_early.clear()
        for number in self._stopped_early:
            life.stop_requested(number)
        give_back()
        return life

    def _limit_others(self) -> None:
        """Containers come from here on. What they write to the kernel's log must not drown what the driver says there;
        and a pod that mounts /dev/log of the machine gets none that it could fill, unless it is root. A daemon that is
        started again has to be heard, and some are not root.
        """
        self._are_others_limited = True
        try:
            self.system.set_owner(paths.DEV_LOG, 0, paths.DEV_LOG_GROUP, 0o660)
        except OSError:
            pass  # there is none in this table
        try:
            self.system.write(paths.PRINTK_DEVKMSG, b"ratelimit\n")  # the kernel wants the newline
        except OSError:
            pass  # printk.devkmsg= on the command line decided it for good, and the step `journal` has said so

    # Events

    def take_signals(self) -> None:
        for number in linux.read_signals(self.signals):
            if number != signal.SIGCHLD:
                self._stop(number)
        self._reap()

    def _reap(self) -> None:
        for child in self.system.reap():
            if self.life is not None:
                self.life.child_ended(*child)
                continue
            self.ended_early[child[0]] = child[1], self.system.now()
            if self.closing is not None:
                self.closing.child_ended(*child)
        if self.life is None and not self.is_over:
            self._start_early(self.executor.facts)
            self._miss_daemons(self.executor.facts)

    def _miss_daemons(self, facts: Facts) -> None:
        """A daemon that GPUs depend on and that ends while the boot goes on has failed the step that started it."""
        if self.ended_early and facts.services:
            from nvrc.pid1.ends import miss_daemons

            miss_daemons(facts, self.ended_early)

    def ends_of_boot(self) -> list[tuple[int, int]]:
        """Pid and wait status of what has ended."""
        if not self.ended_early:
            return []
        from nvrc.pid1.ends import find_ends

        return find_ends(self.executor, self.ended_early)

    def _stop(self, number: int) -> None:
        if self.is_over:
            self.is_hurried = True
        elif self.life is not None:
            self.life.stop_requested(number)
        elif self.executor.facts.agent_pid is None or self.early is not None:
            raise StopError(signal_name(number))
        else:
            self._stopped_early.append(number)  # the agent is running already: it is told once we look after it

    def _publish_life(self, verdict: Verdict) -> None:
        self.bulletin.publish_life(self.bulletin.verdict if self.is_over else verdict, self.journal, self.life)


def count_gpus(facts: Facts) -> int:
    """Those that containers can be given; on the bus, where nothing attaches them."""
    if facts.ledger is not None:
        from nvrc.engine.ledger import ledger_of

        return sum(1 for record in ledger_of(facts) or () if not record.code)
    return len(facts.on_bus)
