# SPDX-License-Identifier: Apache-2.0
"""Step `topology`: what is on the PCI bus, which machine that is, and whether the command line agrees."""

from __future__ import annotations

from nvrc.claims import check_claims
from nvrc.facts import Facts, replace
from nvrc.system import System
from nvrc.topology import classify, decide, scan


def detect(sys: System, facts: Facts) -> Facts:
    topology = classify(scan(sys))
    mode = decide(topology)
    claims = check_claims(facts.parameters.settings, mode) if facts.parameters else ()
    return replace(facts, topology=topology, mode=mode, warnings=facts.warnings + claims)
