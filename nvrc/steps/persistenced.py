# SPDX-License-Identifier: Apache-2.0
"""Step `persistenced`: the first client of the GPUs attaches all of them, and stays. Waits while it gets further."""

from __future__ import annotations

from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.machine.system import System
from nvrc.services.persistence import AttachError, attach

SLACK_S = 10.0  # the step itself keeps time and says more than "deadline"


def run(system: System, facts: Facts) -> Facts:
    settings = facts.settings
    try:
        found = attach(system, facts.on_bus, settings.gpus, patience_s=_patience_s(facts),
                       uvm=settings.uvm_persistence, root=facts.driver_root, journal=facts.journal)
    except AttachError as err:
        raise FailedWithFacts(err, replace(facts, ledger=err.ledger)) from err
    return replace(facts, services=(*facts.services, found.running), ledger=found.ledger, told=found.told,
                   warnings=facts.warnings + found.warnings)


def deadline_s(facts: Facts) -> float:
    """Every GPU may need its time, and so may the daemon before the first and after the last."""
    return SLACK_S + _patience_s(facts) * (2 * len(facts.on_bus) + 1)


def tell(facts: Facts) -> str:
    """`8 of 8 GPUs attached, slowest 4.4 s`, for the step's console line."""
    ledger = facts.ledger or ()
    times = [record.seconds for record in ledger if record.seconds is not None and not record.code]
    slowest = f", slowest {max(times):.1f} s" if times else ""
    return f"{len(times)} of {len(ledger)} GPUs attached{slowest}"


def _patience_s(facts: Facts) -> float:
    return facts.patience_s(facts.settings.timeout_persistenced_s)
