# SPDX-License-Identifier: Apache-2.0
"""Step `topology`: what is on the PCI bus, which machine that is, and whether the command line agrees."""

from __future__ import annotations

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import PATIENT
from nvrc.hardware.topology import COLUMNS, classify, counting, decide, scan
from nvrc.machine.system import Readable
from nvrc.params.claims import check_claims
from nvrc.vocabulary.trouble import remark

deadline_s = PATIENT


def run(sys: Readable, facts: Facts) -> Facts:
    topology = classify(scan(sys))
    mode = decide(topology)
    claims = check_claims(facts.parameters.settings, mode) if facts.parameters else ()
    return replace(facts, topology=topology, mode=mode, warnings=facts.warnings + tuple(map(remark, claims)))


def tell(facts: Facts) -> str:
    """`gpu-nvl4: 4 NVSwitches, 8 GPUs`, for the step's console line."""
    if facts.mode is None or facts.topology is None:
        return ""
    seen = [counting(count, words) for count, words in zip(facts.topology.counts, COLUMNS, strict=True) if count]
    return f"{facts.mode.value}: {', '.join(seen) or 'no NVIDIA device'}"
