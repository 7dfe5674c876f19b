# SPDX-License-Identifier: Apache-2.0
"""Whether the GPUs that came up are those on the bus, and as many as the command line wants.

Compared by bus id, not by number: a GPU that another one stands in for would pass a count. What has no bus id, or one
that is listed twice, is refused before in gpu_identity.py.
"""

from __future__ import annotations

from nvrc.nvml.answers import NvmlGpu
from nvrc.params.values import CountRule, GpuCount
from nvrc.vocabulary.errors import NvrcError

SILENT, NOT_DESCRIBED = "E_GPU_NVML", "E_CDI_GPU_NODE"


def check_count(gpus: tuple[NvmlGpu, ...], on_bus: tuple[str, ...], rule: GpuCount) -> tuple[str, ...]:
    """A sentence per GPU that the boot goes on without; NvrcError when the rule does not hold."""
    faulty = [gpu for gpu in gpus if gpu.error]
    listed = {gpu.bdf for gpu in gpus if gpu.bdf}
    strange = sorted(listed - set(on_bus))
    if strange:
        raise NvrcError("E_GPU_COUNT", f"the driver lists {', '.join(strange)}, which the scan of the bus did not see",
                        "no GPU may be plugged in during boot; check the VM's devices on the host")
    # A GPU whose very handle is refused has no bus id: then its number and its bus id are told apart from each other.
    missing = [bdf for bdf in on_bus if bdf not in listed]
    ready = len({gpu.bdf for gpu in gpus if not gpu.error} & set(on_bus))
    if not rule.holds(ready, len(on_bus)):
        raise _refusal(faulty, missing, ready, len(on_bus), rule)
    return (*(f"{SILENT} {gpu.label} is left out: {gpu.error}" for gpu in faulty),
            *((f"{SILENT} NVIDIA's library does not list {', '.join(missing)}",) if missing else ()))


def _refusal(faulty: list[NvmlGpu], missing: list[str], ready: int, on_bus: int, rule: GpuCount) -> NvrcError:
    counted = f"{ready} of {on_bus} GPUs answer, nvrc.gpus={rule.text()}"
    absent = f"; not listed: {', '.join(missing)}" if missing else ""
    if faulty:
        reasons = "; ".join(f"{gpu.label}: {gpu.error}" for gpu in faulty)
        return NvrcError("E_GPU_NVML", f"{counted}; {reasons}{absent}")
    if not missing and rule.rule is not CountRule.ALL:
        return NvrcError("E_GPU_COUNT", counted, "pass as many GPUs to the VM as nvrc.gpus says, or correct it")
    return NvrcError("E_GPU_COUNT", counted + absent)
