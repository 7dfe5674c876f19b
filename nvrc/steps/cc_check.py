# SPDX-License-Identifier: Apache-2.0
"""Step `cc-check`: the confidential mode of the machine and of each GPU, against what the command line demands."""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING
from nvrc.engine.facts import Facts, replace

if TYPE_CHECKING:
    from nvrc.machine.system import System


def check(_system: System, facts: Facts) -> Facts:
    from nvrc.nvml.answers import CcMemory, CcSystem, read_record, read_records
    from nvrc.nvml.client import ask, settings_of, usable
    from nvrc.nvml.judge import Mode, judge
    from nvrc.vocabulary.errors import NvrcError

    answer = ask(facts, "cc", gpus=usable(facts))
    if not isinstance(answer, dict) or answer.keys() != {"system", "gpus"}:
        raise NvrcError("E_NVML_CRASH", f"the worker's answer is no confidential mode: {ascii(answer)[:80]}")
    numbers = None if answer["system"] is None else read_record(CcSystem, answer["system"])
    memories = read_records(CcMemory, answer["gpus"])
    labels = {gpu.number: gpu.label for gpu in facts.gpus or ()}
    if numbers is not None and tuple(memory.number for memory in memories) != usable(facts):
        raise NvrcError("E_CC_UNKNOWN", "the worker did not answer for every GPU")
    found = judge(numbers, memories, labels, settings_of(facts).cc)
    remarks = ("the GPUs are in developer tools mode: nothing in them is confidential",
               ) if found.mode is Mode.DEVTOOLS else ()
    return replace(facts, confidential=found, warnings=facts.warnings + remarks)


def deadline_s(facts: Facts) -> float:
    from nvrc.nvml.client import deadline_s as of_one_request

    return of_one_request(facts)


def tell(facts: Facts) -> str:
    return facts.confidential.mode.value if facts.confidential else ""
