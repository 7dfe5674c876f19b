# SPDX-License-Identifier: Apache-2.0
"""Step `device-nodes`: the driver's nodes in /dev, before any daemon or library would make them by the way.

The worker that will use them is forked here as well.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, replace
from nvrc.machine.system import System
from nvrc.vocabulary import paths


def make(system: System, facts: Facts) -> Facts:
    from nvrc.hardware.device_nodes import make_nodes

    if facts.modules is not None and "nvidia" not in facts.modules:
        return replace(facts, device_nodes=())  # the service VM of NVLink 5 drives InfiniBand, and devtmpfs knows that
    # A GPU that the driver does not list was judged by the step before: nvrc.gpus may do without it.
    gpus = tuple(gpu.bdf for gpu in facts.topology.gpus
                 if system.exists(f"{paths.NVIDIA_PROC}/gpus/{gpu.bdf}")) if facts.topology else ()
    nodes = make_nodes(system, gpus)
    if not gpus:
        return replace(facts, device_nodes=nodes)
    from nvrc.nvml.client import prepare_worker

    # Forked here, on the main thread, so that it warms up while the driver attaches the GPUs.
    return replace(facts, device_nodes=nodes, worker=prepare_worker(system, facts))


def tell(facts: Facts) -> str:
    return f"{len(facts.device_nodes or ())} nodes"
