# SPDX-License-Identifier: Apache-2.0
"""Step `cc-check`: the confidential mode of the machine and of each GPU, against what the command line demands."""

from __future__ import annotations

from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, replace
from nvrc.machine.system import System
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.judge import Mode, judge
from nvrc.vocabulary.errors import NvrcError


def run(_system: System, facts: Facts) -> Facts:
    client = client_of(facts)
    answer = client.confidential(facts.usable)
    answered = tuple(memory.number for memory in answer.gpus)
    if answered != (() if answer.system is None else facts.usable):
        raise NvrcError("E_CC_UNKNOWN", f"asked for the mode of GPU {_listed(facts.usable)}, the worker answered for "
                                        f"{_listed(answered)}")
    labels = {gpu.number: gpu.label for gpu in facts.gpus or ()}
    found = judge(answer.system, answer.gpus, labels, facts.settings.cc)
    remarks = ("the GPUs are in developer tools mode: nothing in them is confidential",
               ) if found.mode is Mode.DEVTOOLS else ()
    checked = tuple(gpu.bdf for gpu in facts.gpus or () if gpu.number in answered)
    return replace(facts, confidential=found, cc_checked=checked, warnings=facts.warnings + remarks)


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    return facts.confidential.mode.value if facts.confidential else ""


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:16])) or "none"
