# SPDX-License-Identifier: Apache-2.0
"""Step `fabric-check`: every GPU that has an NVLink fabric is registered with it, before a program finds out otherwise.

The fabric manager of this VM or of the host assigns it, on a whole board or a part of one, and for a while after the
attach it is not done. The library is asked again until it is, or until the limit; there is no event to wait for.
"""

from __future__ import annotations

from _queue import SimpleQueue

from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.machine.system import System
from nvrc.nvml.answers import FabricState
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.registration import find_cliques, find_faults, is_settled, read_registrations
from nvrc.params.table import asked
from nvrc.vocabulary.errors import NvrcError

PAUSE_S = 0.25


def run(system: System, facts: Facts) -> Facts:
    states = _settle(system, facts)
    places = {gpu.number: (gpu.bdf, gpu.uuid) for gpu in facts.gpus or ()}
    found = read_registrations(states, places)
    faults = find_faults(found)
    checked = replace(facts, fabric=found, warnings=(*facts.warnings, *faults, *find_cliques(found)))
    rule, rest = facts.settings.gpus, len(facts.usable) - len(faults)
    if faults and not rule.holds(rest, len(facts.on_bus)):
        what = "; ".join(fault.what for fault in faults)
        error = NvrcError("E_FABRIC_STATE", f"{what}; {asked('gpus', rule)}", gpu=faults[0].gpu, uuid=faults[0].uuid)
        raise FailedWithFacts(error, replace(facts, fabric=found))
    return checked


def patience_s(facts: Facts) -> float:
    return facts.patience_s(facts.settings.timeout_fabric_s)


def deadline_s(facts: Facts) -> float:
    return patience_s(facts) + facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`8 GPUs registered, clique 1`, or that there is no fabric."""
    found = facts.fabric or ()
    if not found:
        return "no GPU has a fabric"
    cliques = sorted({one.clique for one in found if one.is_good})
    good = sum(one.is_good for one in found)
    return f"{good} of {len(found)} GPUs registered, clique {', '.join(map(str, cliques)) or 'none'}"


def _settle(system: System, facts: Facts) -> tuple[FabricState, ...]:
    client, until_s = client_of(facts), system.now() + patience_s(facts)
    nothing: SimpleQueue[None] = SimpleQueue()
    while True:
        states = client.fabric(facts.usable)
        if tuple(one.number for one in states) != facts.usable:
            raise NvrcError("E_NVML_CRASH", "the worker's answer is not about the GPUs that it was asked for")
        if is_settled(states) or system.now() >= until_s:
            return states
        system.wait(nothing, PAUSE_S)
