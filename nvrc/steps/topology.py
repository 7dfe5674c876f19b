# SPDX-License-Identifier: Apache-2.0
"""Step `topology`: what is on the PCI bus, which machine that is, and whether the command line agrees.

How many GPUs must come up is asked where they do, step by step. Without any of them those steps do not run, so that
none is too few is found here.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import PATIENT
from nvrc.hardware.topology import COLUMNS, classify, counting, decide, scan
from nvrc.machine.system import Readable
from nvrc.params.claims import check_claims
from nvrc.params.values import GpuCount
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import remark

deadline_s = PATIENT


def run(sys: Readable, facts: Facts) -> Facts:
    topology = classify(scan(sys))
    mode = decide(topology)
    claims = check_claims(facts.parameters.settings, mode) if facts.parameters else ()
    if facts.parameters and not topology.gpus:
        _check_none(facts.parameters.settings.gpus)
    return replace(facts, topology=topology, mode=mode, warnings=facts.warnings + tuple(map(remark, claims)))


def _check_none(rule: GpuCount) -> None:
    if not rule.holds(0, 0):
        raise NvrcError("E_GPU_COUNT", f"no GPU is on the bus; {rule.required(0)}")


def tell(facts: Facts) -> str:
    """`gpu-nvl4: 4 NVSwitches, 8 GPUs`, for the step's console line."""
    if facts.mode is None or facts.topology is None:
        return ""
    seen = [counting(count, words) for count, words in zip(facts.topology.counts, COLUMNS, strict=True) if count]
    return f"{facts.mode.value}: {', '.join(seen) or 'no NVIDIA device'}"
