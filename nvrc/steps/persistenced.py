# SPDX-License-Identifier: Apache-2.0
"""Step `persistenced`: the first client of the GPUs attaches all of them, and stays. Waits while it gets further."""

from __future__ import annotations

from nvrc.engine.facts import Facts
from nvrc.machine.system import System

SLACK_S = 10.0  # the step itself keeps time and says more than "deadline"


def attach(system: System, facts: Facts) -> Facts:
    from nvrc.services import persistence

    return persistence.attach(system, facts)


def deadline(facts: Facts) -> float:
    """Every GPU may need its time, and so may the daemon before the first and after the last."""
    from nvrc.services.persistence import patience_s

    assert facts.topology is not None  # noqa: S101 - `needs` puts it before
    return SLACK_S + patience_s(facts) * (2 * len(facts.topology.gpus) + 1)


def tell(facts: Facts) -> str:
    """`8 of 8 GPUs attached, slowest 4.4 s`, for the step's console line."""
    ledger = facts.ledger or ()
    times = [record.seconds for record in ledger if record.seconds is not None and not record.code]
    slowest = f", slowest {max(times):.1f} s" if times else ""
    return f"{len(times)} of {len(ledger)} GPUs attached{slowest}"
