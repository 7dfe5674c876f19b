# SPDX-License-Identifier: Apache-2.0
"""The page about supervision, from the table of services and the rules. Off the boot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nvrc.services import table as services
from nvrc.services.table import RULES, Restart, Service
from nvrc.steps.agent import OOM_SCORE_ADJ

TEXT = """\
PID 1 looks after every program that it starts. What the end of one means, whether it comes back, and who goes first
when memory is short are rows of one table.

A service that ends is restarted as its rule says, each time after a longer pause. The tries of a rule with a steady
time are forgiven once it has run that long. After the last one it is given up: its code is told, the VM is degraded,
and with `nvrc.strict` one that GPUs depend on ends the VM. Nothing of this ends a container. Where there are no
processes, files or memory to start it with, which a container can use up, that does not count: another try follows
every ten seconds.

`oom_score_adj` says whom the kernel kills when the guest runs out of memory: the higher, the sooner. Containers have
0 and more. Before that, PID 1 tells `E_MEMORY` when all tasks waited for memory for 300 ms within 2 s, and again
with the name of what the kernel has killed; each at most once a minute. Metrics have both ([metrics](metrics.md)).
"""


def all_services() -> tuple[Service, ...]:
    return tuple(value for value in vars(services).values() if isinstance(value, Service))


def render_supervision(table: Callable[[Sequence[str], Iterable[Sequence[str]]], list[str]]) -> str:
    """`table` makes one of its head and its rows."""
    rows = [(f"`{one.name}`", one.importance.value, _rule(one.restart), str(one.oom_score_adj), f"`{one.lost_code}`")
            for one in all_services()]
    agent = ("`kata-agent`", "the VM's reason", "never: its end is the VM's", str(OOM_SCORE_ADJ), "`E_AGENT_EXIT`")
    return "\n".join([
        "# Supervision", "",
        "<!-- Written by `python -m nvrc.pages.reference`; edit the table in nvrc/services/table.py instead. -->", "",
        TEXT, "## The table", "",
        *table(("service", "importance", "restarts", "`oom_score_adj`", "given up as"), [agent, *rows])]) + "\n"


def _rule(restart: Restart) -> str:
    rule = RULES[restart]
    if not rule.most:
        return "never"
    pauses = ", ".join(f"{rule.first_s * 2 ** number:g}" for number in range(rule.most))
    steady = f"; forgiven after {rule.steady_s:g} s" if rule.steady_s is not None else ""
    return f"{restart.value}: {rule.most}, after {pauses} s{steady}"
