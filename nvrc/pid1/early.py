# SPDX-License-Identifier: Apache-2.0
"""The agent beside the attach of the GPUs, for nvrc.agent.early: its end, PID 1's limit, and PID 1's word.

Loaded once there is a promise (nvrc/steps/promise.py), so no other boot pays for it.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable, Iterable, replace
from nvrc.engine.executor import RUNNING, BootError, Executor
from nvrc.engine.facts import known
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.pid1.supervise import Supervisor
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import Trouble

if TYPE_CHECKING:
    from nvrc.pid1.agent_output import AgentOutput
    from nvrc.vocabulary.ending import Ending


class Early:
    """`supervisor` is of an agent that has ended; `is_over`: the boot has, or the VM."""

    def __init__(self, system: System, loop: Loop, executor: Executor, is_over: Callable[[], bool]) -> None:
        self._system, self._executor, self._is_over = system, executor, is_over
        self._limit_s = executor.facts.settings.timeout_boot_s
        self.supervisor: Supervisor | None = None
        loop.at(system.now() + self._limit_s, self._give_up)

    @property
    def ending(self) -> Ending | None:
        """The agent's, where that has ended."""
        found = self.supervisor.ending if self.supervisor is not None else None
        return replace(found, step="agent") if isinstance(found, Trouble) else found

    def miss_agent(self, ended: Iterable[tuple[int, int]], output: AgentOutput | None) -> None:
        """One that ends while the GPUs attach: nobody is left who could give them to containers."""
        facts, records = self._executor.facts, self._executor.records
        agent = known(facts.agent_pid, "agent")
        for pid, status in ended:
            if pid == agent:
                had_sandbox = self._system.exists(paths.SANDBOX)
                complaint = output.finish() if output is not None else ""
                started_s = next(record.end_s for record in records if record.name == "agent")
                self.supervisor = Supervisor(agent_pid=agent, own_pid_namespace=facts.settings.agent_pidns,
                                             started_s=started_s)
                self.supervisor.child_ended(pid, status, self._system.now(), had_sandbox=had_sandbox,
                                            complaint="" if had_sandbox else complaint)
                raise BootError(make_trouble("E_AGENT_EXIT", "the agent ended while the GPUs attached"))

    def keep(self) -> None:
        """All is up."""
        from nvrc.steps.promise import keep

        try:
            keep(self._system, known(self._executor.facts.promise, "promise"))
        except OSError as err:
            what = f"cannot write that the GPUs are up, for which containers wait: {err}"
            raise BootError(make_trouble("E_RUN_FULL", what, step="promise")) from err

    def _give_up(self) -> None:
        """Containers wait, and not for ever: before their hooks give up, the VM ends."""
        if self._is_over():
            return
        running = [record.name for record in self._executor.records if record.outcome == RUNNING]
        what = (f"the GPUs that containers were promised are not up after {self._limit_s} s (nvrc.timeout.boot); "
                f"running: {', '.join(running) or 'nothing'}")
        raise BootError(make_trouble("E_BOOT_OVERDUE", what, step=next(iter(running), "promise")))
