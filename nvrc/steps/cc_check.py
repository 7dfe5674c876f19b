# SPDX-License-Identifier: Apache-2.0
"""Step `cc-check`: the confidential mode of the machine, of each GPU and NVSwitch, against what the line requires."""

from __future__ import annotations

from guest_cdi.lean.light import Iterator
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, known, replace
from nvrc.machine.system import System
from nvrc.nvml.client import SPARE_S, Client
from nvrc.nvml.judge import Confidential, Mode, judge
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import remark


def run(_system: System, facts: Facts) -> Facts:
    client = client_of(facts)
    answer = client.confidential(facts.usable)
    answered = tuple(memory.number for memory in answer.gpus)
    if answered != (() if answer.system is None else facts.usable):
        raise NvrcError("E_CC_UNKNOWN", f"asked for the mode of GPU {_listed(facts.usable)}, the worker answered for "
                                        f"{_listed(answered)}")
    labels = {gpu.number: gpu.label for gpu in facts.gpus or ()}
    found = _ask_switches(facts, client, judge(answer.system, answer.gpus, labels, facts.settings.cc))
    if facts.promise is not None and found.mode is not Mode.OFF:
        raise NvrcError("E_AGENT_EARLY", f"the agent runs already, and the GPUs are confidential: {found.mode.value}")
    remarks = tuple(map(remark, _remarks(found.mode, bool(known(facts.topology, "topology").nics))))
    checked = tuple(gpu.bdf for gpu in facts.gpus or () if gpu.number in answered)
    return replace(facts, confidential=found, cc_checked=checked, warnings=facts.warnings + remarks)


def _remarks(mode: Mode, has_nics: bool) -> Iterator[str]:
    if mode is Mode.DEVTOOLS:
        yield "the GPUs are in developer tools mode: nothing in them is confidential"
    if mode is not Mode.OFF and has_nics:
        yield (f"GPUDirect RDMA is unavailable in confidential mode ({mode.value}): what leaves a GPU is encrypted and "
               "copied by way of the guest's memory, and a NIC may not read GPU memory before both prove themselves on "
               "the bus (TDISP)")


def _ask_switches(facts: Facts, client: Client, found: Confidential) -> Confidential:
    """Protected PCIe is a promise of the switches as well, and those have a library of their own."""
    if found.mode is not Mode.PPCIE:
        return found
    from nvrc.nvml.switches import check_alone, check_switches  # which most boots go without

    on_bus = tuple(function.bdf for function in known(facts.topology, "topology").nvswitches)
    if not on_bus:
        check_alone(len(facts.on_bus))
        return found
    check_switches(client.switches(), on_bus)
    return found._replace(why=f"{found.why}; NSCQ: {len(on_bus)} NVSwitches protected and locked")


def deadline_s(facts: Facts) -> float:
    """Two requests: GPUs, switches."""
    return 2 * facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    return facts.confidential.mode.value if facts.confidential else ""


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:16])) or "none"
