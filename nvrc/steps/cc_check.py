# SPDX-License-Identifier: Apache-2.0
"""Step `cc-check`: the confidential mode of the machine and of each GPU, against what the command line demands."""

from __future__ import annotations

from guest_cdi.light import TYPE_CHECKING
from nvrc.facts import Facts, replace

if TYPE_CHECKING:
    from nvrc.system import System


def check(_system: System, facts: Facts) -> Facts:
    from nvrc.confidential import Mode, judge
    from nvrc.errors import NvrcError
    from nvrc.gpu_worker import ask, settings_of, usable
    from nvrc.nvml_answers import CcMemory, CcSystem, read_record, read_records

    answer = ask(facts, "cc", gpus=usable(facts))
    if not isinstance(answer, dict) or answer.keys() != {"system", "gpus"}:
        raise NvrcError("E_NVML_CRASH", f"the worker's answer is no confidential mode: {ascii(answer)[:80]}")
    numbers = None if answer["system"] is None else read_record(CcSystem, answer["system"])
    memories = read_records(CcMemory, answer["gpus"])
    labels = {gpu.number: gpu.label for gpu in facts.gpus or ()}
    answered = tuple(memory.number for memory in memories)
    if answered != (() if numbers is None else usable(facts)):
        raise NvrcError("E_CC_UNKNOWN", f"asked for the mode of GPU {_listed(usable(facts))}, the worker answered for "
                                        f"{_listed(answered)}")
    found = judge(numbers, memories, labels, settings_of(facts).cc)
    remarks = ("the GPUs are in developer tools mode: nothing in them is confidential",
               ) if found.mode is Mode.DEVTOOLS else ()
    checked = tuple(gpu.bdf for gpu in facts.gpus or () if gpu.number in answered)
    return replace(facts, confidential=found, cc_checked=checked, warnings=facts.warnings + remarks)


def deadline_s(facts: Facts) -> float:
    from nvrc.gpu_worker import deadline_s as of_one_request

    return of_one_request(facts)


def tell(facts: Facts) -> str:
    return facts.confidential.mode.value if facts.confidential else ""


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:16])) or "none"
