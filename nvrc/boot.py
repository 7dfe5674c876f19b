# SPDX-License-Identifier: Apache-2.0
"""The boot, on one screen. Order is `needs`, applicability is `when`, everything else belongs to the steps."""

from __future__ import annotations

from nvrc.steps import agent, filesystems, identity, journal, lock_modules, loopback, parameters, topology
from nvrc.table import Step, seconds

__all__ = ["BOOT"]

BOOT: tuple[Step, ...] = (
    Step("filesystems",  filesystems.mount,        deadline=seconds(10)),
    Step("journal",      journal.open_log,         deadline=seconds(10), needs=("filesystems",)),
    Step("parameters",   parameters.load,          deadline=seconds(10), needs=("filesystems",)),
    Step("identity",     identity.establish,       deadline=seconds(10), needs=("filesystems",)),
    Step("loopback",     loopback.raise_interface, deadline=seconds(10), needs=("filesystems",)),
    Step("topology",     topology.detect,          deadline=seconds(10), needs=("parameters",), tells=topology.tell),
    Step("lock-modules", lock_modules.lock,        deadline=seconds(10), needs=("topology",)),
    Step("agent",        agent.start,              deadline=seconds(30), needs=("journal", "identity", "loopback",
                                                                                "lock-modules")),
)
