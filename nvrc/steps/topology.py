# SPDX-License-Identifier: Apache-2.0
"""Step `topology`: scan the PCI bus, decide the mode."""

from __future__ import annotations

from nvrc.facts import Facts, replace
from nvrc.system import System
from nvrc.topology import classify, decide, scan


def detect(sys: System, facts: Facts) -> Facts:
    topology = classify(scan(sys))
    return replace(facts, topology=topology, mode=decide(topology))
