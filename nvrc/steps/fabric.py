# SPDX-License-Identifier: Apache-2.0
"""Step `fabric`: the daemons that set up NVSwitches, on machines that have any. Waits until they are ready."""

from __future__ import annotations

from nvrc.engine.facts import Facts
from nvrc.machine.system import System

SLACK_S = 10.0  # the step itself keeps time and says more than "deadline"


def bring_up(system: System, facts: Facts) -> Facts:
    from nvrc.services import fabric

    return fabric.bring_up(system, facts)


def deadline(facts: Facts) -> float:
    from nvrc.services.fabric import fabric_limit_s, subnet_limit_s

    return SLACK_S + subnet_limit_s(facts) + fabric_limit_s(facts)


def tell(facts: Facts) -> str:
    """`nvlsm, nv-fabricmanager`, for the step's console line."""
    return ", ".join(running.service.name for running in facts.services if running.service.step == "fabric")
