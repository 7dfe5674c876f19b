# SPDX-License-Identifier: Apache-2.0
"""Step `cc-check`: the confidential mode of the machine and of each GPU, against what the command line demands."""

from __future__ import annotations

from nvrc.engine.facts import Facts, known, replace
from nvrc.machine.system import System
from nvrc.nvml.client import SPARE_S, Client
from nvrc.nvml.judge import Mode, judge
from nvrc.vocabulary.errors import NvrcError


def run(_system: System, facts: Facts) -> Facts:
    client = Client(known(facts.worker, "device-nodes"), facts.nvml_patience_s)
    answer = client.confidential(facts.usable)
    if answer.system is not None and tuple(memory.number for memory in answer.gpus) != facts.usable:
        raise NvrcError("E_CC_UNKNOWN", "the worker did not answer for every GPU")
    labels = {gpu.number: gpu.label for gpu in facts.gpus or ()}
    found = judge(answer.system, answer.gpus, labels, facts.settings.cc)
    remarks = ("the GPUs are in developer tools mode: nothing in them is confidential",
               ) if found.mode is Mode.DEVTOOLS else ()
    return replace(facts, confidential=found, warnings=facts.warnings + remarks)


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    return facts.confidential.mode.value if facts.confidential else ""
