# SPDX-License-Identifier: Apache-2.0
"""Step `device-nodes`: the driver's nodes in /dev, before any daemon or library would make them by the way.

The worker that will use them is forked here as well, and the port that it might take is PID 1's before.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import LONG
from nvrc.hardware.device_nodes import make_nodes
from nvrc.machine.system import System
from nvrc.nvml.client import prepare_worker
from nvrc.vocabulary import paths

deadline_s = LONG


def run(system: System, facts: Facts) -> Facts:
    facts = _take_metrics_port(system, facts)
    if facts.modules is not None and "nvidia" not in facts.modules:
        return replace(facts, device_nodes=())  # the service VM of NVLink 5 drives InfiniBand, and devtmpfs knows that
    # A GPU that the driver does not list was judged by the step before: nvrc.gpus may do without it.
    gpus = tuple(bdf for bdf in facts.on_bus if system.exists(f"{paths.NVIDIA_PROC}/gpus/{bdf}"))
    nodes = make_nodes(system, gpus)
    if not gpus:
        return replace(facts, device_nodes=nodes)
    # Forked here, on the main thread, so that it warms up while the driver attaches the GPUs.
    return replace(facts, device_nodes=nodes, worker=prepare_worker(system, facts.driver_root))


def _take_metrics_port(system: System, facts: Facts) -> Facts:
    """Before there is a program that could listen in PID 1's place."""
    if facts.parameters is None or facts.settings.metrics_port is None:
        return facts
    from nvrc.machine.ports import take_metrics_port

    return replace(facts, metrics_listener=take_metrics_port(system, facts.settings))


def tell(facts: Facts) -> str:
    return f"{len(facts.device_nodes or ())} nodes"
