# SPDX-License-Identifier: Apache-2.0
"""What has ended during the boot: by pid, its wait status and when. Loaded with the first end.

Orphans are among it, of which a daemon makes as many as it likes, and a pid is given again: an end from before agent or
daemon was started was that of another process.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping
from nvrc.engine.executor import BootError
from nvrc.machine.wait import ChildEnded
from nvrc.vocabulary.errors import make_trouble

if TYPE_CHECKING:
    from nvrc.engine.executor import Executor
    from nvrc.engine.facts import Facts

    Ends = Mapping[int, tuple[int, float]]

# Nothing runs yet that could go on, unlike when a daemon is lost later.
LOST_EARLY = ("read its last lines above; after a SIGKILL give the VM more memory, the kernel was probably out of it; "
              "reset the GPUs before the next start")


def miss_daemons(facts: Facts, ends: Ends) -> None:
    """BootError for a daemon that GPUs depend on."""
    for running in facts.services:
        status, ended_s = ends.get(running.pid or 0, (0, -1.0))
        if running.pid and running.is_critical and ended_s >= running.since_s:
            what = f"{running.service.name} {ChildEnded(running.pid, status).text()} during the boot"
            raise BootError(make_trouble("E_SERVICE_LOST", what, LOST_EARLY, step=running.service.step,
                                         service=running.service.name))


def find_ends(executor: Executor, ends: Ends) -> list[tuple[int, int]]:
    """Pid and wait status of each."""
    facts = executor.facts
    since_s = {facts.agent_pid: next((one.start_s for one in executor.records if one.name == "agent"), 0.0)}
    for running in facts.services:
        since_s |= {running.started_pid: running.since_s, running.pid: running.since_s}
    return [(pid, status) for pid, (status, ended_s) in ends.items() if ended_s >= since_s.get(pid, 0.0)]
