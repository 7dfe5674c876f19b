# SPDX-License-Identifier: Apache-2.0
"""Step `device-nodes`: the driver's nodes in /dev, before any daemon or library would make them by the way."""

from __future__ import annotations

from nvrc.facts import Facts, replace
from nvrc.system import System


def make(system: System, facts: Facts) -> Facts:
    from nvrc.device_nodes import make_nodes

    gpus = tuple(gpu.bdf for gpu in facts.topology.gpus) if facts.topology else ()
    return replace(facts, device_nodes=make_nodes(system, gpus))


def tell(facts: Facts) -> str:
    return f"{len(facts.device_nodes or ())} nodes"
