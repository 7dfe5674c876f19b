# SPDX-License-Identifier: Apache-2.0
"""The VM's life between hand-over and its end: agent, daemons and GPUs, with everything that is done about them.

Decisions are made in supervise, daemons and health; here they meet the event loop, signals, the console and the
published status. Whatever goes wrong in here is said and passed over: a healthy workload never pays for it.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable
from nvrc.engine.executor import unforeseen
from nvrc.engine.facts import Facts, known
from nvrc.machine.journal import Journal, Line
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.pid1.supervise import Supervisor, is_deaf_to
from nvrc.vocabulary import console, paths
from nvrc.vocabulary.ending import Orderly
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.signals import signal
from nvrc.vocabulary.verdict import Verdict

if TYPE_CHECKING:
    from nvrc.pid1.agent_output import AgentOutput
    from nvrc.pid1.lease import Lease
    from nvrc.report.status import ServiceRecord, XidRecord
    from nvrc.services.ledger import Ledger
    from nvrc.vocabulary.ending import Ending
    from nvrc.vocabulary.gpu import GpuRecord
    from nvrc.vocabulary.trouble import Trouble

KILL_DEADLINE_S = 5.0
LAST_WORDS_S = 1.0  # lines that were sent before a process ended are read after
MOST_NEWS, MOST_OF_A_CODE = 100, 24  # kept for the status; the console has all


class Life:
    def __init__(self, system: System, loop: Loop, journal: Journal, facts: Facts, *, is_degraded: bool,
                 publish: Callable[[Verdict], None], output: AgentOutput | None = None) -> None:
        self._system, self._loop, self._journal, self._publish = system, loop, journal, publish
        self._output = output
        self._settings = facts.settings
        self._is_degraded = is_degraded
        self._has_gpus = bool(facts.on_bus)
        self.supervisor = Supervisor(agent_pid=known(facts.agent_pid, "agent"),
                                     own_pid_namespace=self._settings.agent_pidns, started_s=system.now())
        self.news: tuple[Trouble, ...] = ()
        self._watch_gpus(facts)
        self._watch_daemons(facts)

    def _watch_gpus(self, facts: Facts) -> None:
        self._health = self._fabric = None
        self._again: Ledger | None = None
        if facts.ledger is not None:
            from nvrc.engine.ledger import ledger_of
            from nvrc.pid1.health import GpuHealth

            self._health = GpuHealth(ledger_of(facts) or (), self._changed)
            self._journal.listen(self._heard)
        if facts.fabric and facts.worker is not None:
            from nvrc.pid1.fabric_watch import FabricWatch

            places = {gpu.number: (gpu.bdf, gpu.uuid) for gpu in facts.gpus or () if not gpu.error}
            self._fabric = FabricWatch(facts.worker, self._loop, facts.fabric, places, later=self._later,
                                       changed=self._changed, patience_s=facts.nvml_patience_s)
        elif facts.worker is not None:
            facts.worker.stop()  # not before: its end costs as much as a step, and the agent waited for it

        self._lease: Lease | None = None
        if facts.ready is not None and is_confidential(facts):
            self._lease = self._make_lease(facts)

    def _make_lease(self, facts: Facts) -> Lease:
        """Of the ready state, which only confidential GPUs have."""
        from nvrc.nvml.client import prepare_worker
        from nvrc.pid1.lease import Lease

        return Lease(self._settings.ready_revoke, accepts=facts.ready is not None and facts.ready.accepts,
                     loop=self._loop, patience_s=facts.nvml_patience_s, now=self._system.now, changed=self._changed,
                     start=lambda: prepare_worker(self._system, facts.driver_root),
                     kill=lambda pid: self._system.signal(pid, signal.SIGKILL))

    def _watch_daemons(self, facts: Facts) -> None:
        self._daemons = None
        if facts.services or self._settings.metrics_port is not None:
            from nvrc.pid1.daemons import Daemons

            self._daemons = Daemons(self._system, facts.services, is_confidential=is_confidential(facts),
                                    is_strict=self._settings.strict, later=self._later, changed=self._changed,
                                    restarted=self._restarted)

    def start_metrics(self, facts: Facts) -> None:
        """Once the machine is ready, and only if it was asked for; a failure is told, and degrades."""
        if self._settings.metrics_port is None or self._daemons is None:
            return
        try:
            from nvrc.pid1.beside import start_metrics

            self._daemons.add(start_metrics(self._system, facts))
        except NvrcError as err:
            self._is_degraded = True
            self._changed(err.trouble)
        except Exception as err:
            self._is_degraded = True
            self._say(f"no metrics: {unforeseen(err)}")

    def watch_memory(self) -> None:
        """Once the machine is ready: a warning before the kernel kills."""
        try:
            from nvrc.pid1.pressure import Memory

            memory = Memory(self._loop, self._system.now, self._changed)
            memory.watch()
            self._journal.listen(memory.hear)
        except Exception as err:
            self._say(f"memory is not watched: {unforeseen(err)}")

    # What is known

    @property
    def ending(self) -> Ending | None:
        return self.supervisor.ending or (self._daemons.ending if self._daemons else None)

    @property
    def agent(self) -> ServiceRecord:
        return agent_record(self.supervisor)

    @property
    def orphans_reaped(self) -> int:
        return self.supervisor.orphans_reaped

    @property
    def gpus(self) -> tuple[GpuRecord, ...]:
        return self._health.records if self._health else ()

    @property
    def xids(self) -> tuple[XidRecord, ...]:
        return self._health.xids if self._health else ()

    @property
    def ready(self) -> str:
        if self._lease is None:
            return ""
        return "revoked" if self._lease.is_revoked else "accepting" if self._lease.is_held else "waiting"

    @property
    def services(self) -> tuple[ServiceRecord, ...]:
        return self._daemons.records if self._daemons else ()

    @property
    def verdict(self) -> Verdict:
        whole = all(part is None or part.is_whole for part in (self._health, self._daemons, self._fabric))
        if self._is_degraded or not whole or (self._lease is not None and self._lease.is_revoked):
            return Verdict.DEGRADED
        return Verdict.READY if self._has_gpus else Verdict.NO_GPU

    # What happens

    def child_ended(self, pid: int, status: int) -> None:
        is_agent = pid == self.supervisor.agent_pid  # whatever a daemon has written into its PID file
        try:
            if not is_agent and self._daemons is not None and self._daemons.child_ended(pid, status):
                return
        except Exception as err:
            self._say(f"supervision: {unforeseen(err)}")
        # Asked only of the agent: an orphan may be one of ten thousand.
        had_sandbox = not is_agent or self._system.exists(paths.SANDBOX)
        complaint = self._last_complaint() if is_agent else ""
        self.supervisor.child_ended(pid, status, self._system.now(), had_sandbox=had_sandbox,
                                    complaint="" if had_sandbox else complaint)

    def _last_complaint(self) -> str:
        """Of an agent that has ended; what it wrote last is on the console by then."""
        try:
            return self._output.finish() if self._output is not None else ""
        except Exception as err:
            self._say(f"supervision: {unforeseen(err)}")
            return ""

    def stop_requested(self, number: int) -> None:
        if self.supervisor.stop_requested(number):
            self._signal_agent(signal.SIGKILL if self._is_agent_deaf() else signal.SIGTERM)
            self._loop.at(self._system.now() + self._settings.timeout_agent_stop_s, self._kill_agent)

    def _is_agent_deaf(self) -> bool:
        try:
            status = self._system.read(f"/proc/{self.supervisor.agent_pid}/status")
        except OSError:
            return False
        return self._settings.agent_pidns and is_deaf_to(signal.SIGTERM, status)

    def _kill_agent(self) -> None:
        if self.supervisor.stop_overdue():
            self._signal_agent(signal.SIGKILL)
            self._loop.at(self._system.now() + KILL_DEADLINE_S, self.supervisor.give_up)

    def _signal_agent(self, number: int) -> None:
        try:
            self._system.signal(self.supervisor.agent_pid, number)
        except ProcessLookupError:
            pass  # it ended by itself; the reaper is about to tell

    def _heard(self, line: Line) -> None:
        try:
            if self._health is not None:
                self._health.hear(line)
            if self._lease is not None:
                self._lease.hear(line)
            if self._again is not None and self._is_persistenced(line):
                self._again.hear(line, self._system.now())
        except Exception as err:
            self._say(f"supervision: {unforeseen(err)}")

    def _is_persistenced(self, line: Line) -> bool:
        from nvrc.services.ledger import TAG
        from nvrc.services.lineage import speaks_for

        speaker = self._daemons.speaker(TAG) if self._daemons is not None and TAG in line.text else None
        return speaker is not None and speaks_for(self._system, line, speaker)

    def _restarted(self, name: str, is_up: bool) -> None:
        """nvidia-persistenced has to attach its GPUs anew, and only its lines say whether it could."""
        if name != "nvidia-persistenced" or self._health is None:
            return
        if is_up:
            self._later(LAST_WORDS_S, self._attached_again)
        else:
            from nvrc.services.ledger import Ledger

            self._again = Ledger(record.bdf for record in self._health.records if not record.code)

    def _attached_again(self) -> None:
        ledger, self._again = self._again, None
        if ledger is not None and self._health is not None:
            ledger.close()
            self._health.attached_again(ledger.records)

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        def expired() -> None:
            try:
                act()
            except Exception as err:
                self._say(f"supervision: {unforeseen(err)}")

        self._loop.at(self._system.now() + after_s, expired)

    def _changed(self, news: Trouble | None) -> None:
        if news is not None:
            self._system.say(console.trouble_line(news))
            self.news = remember(self.news, news)
            if self._lease is not None:
                self._lease.note(news)
        self._publish(self.verdict)

    def _say(self, sentence: str) -> None:
        self._system.say(console.warning_line(sentence))

    # The end

    def stop_daemons(self) -> None:
        """After the agent's end."""
        if self._daemons is not None:
            from nvrc.pid1.closing import stop_daemons

            stop_daemons(self._system, self._loop, self._daemons, self._settings.timeout_services_stop_s)


def remember(news: tuple[Trouble, ...], latest: Trouble) -> tuple[Trouble, ...]:
    """What is told every minute, as memory that is short, pushes nothing out but what is like it."""
    same = [one for one in news if latest.code and one.code == latest.code]
    oldest = same[0] if len(same) >= MOST_OF_A_CODE else None
    return (*(one for one in news if one is not oldest), latest)[-MOST_NEWS:]


def agent_record(supervisor: Supervisor) -> ServiceRecord:
    """The agent as the status tells of it."""
    from nvrc.report.status import ServiceRecord, ServiceState

    ending = supervisor.ending
    ended = ServiceState.STOPPED if isinstance(ending, Orderly) else ServiceState.FAILED
    return ServiceRecord(name="agent", state=ended if ending else ServiceState.RUNNING, pid=supervisor.agent_pid,
                         since_s=supervisor.started_s, detail=ending.what if ending else "")


def is_confidential(facts: Facts) -> bool:
    """Whether a GPU may be confidential: only a mode that was read as off rules it out."""
    return facts.confidential is None or facts.confidential.mode.value != "off"
