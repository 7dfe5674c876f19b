# SPDX-License-Identifier: Apache-2.0
"""Whether the GPUs that came up are those on the bus, and as many as the command line wants.

Compared by bus id, not by number: a GPU that another one stands in for would pass a count. What has no bus id, or one
that is listed twice, is refused before in gpu_identity.py.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Sequence
from nvrc.nvml.answers import NvmlGpu
from nvrc.params.table import asked
from nvrc.params.values import GpuCount
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.gpu import GpuRecord, name_place

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code
    from nvrc.vocabulary.trouble import Trouble

SILENT: Code = "E_GPU_NVML"
NOT_DESCRIBED: Code = "E_CDI_GPU_NODE"


def check_count(gpus: Sequence[NvmlGpu], ledger: Sequence[GpuRecord], rule: GpuCount) -> tuple[Trouble, ...]:
    """One per GPU that the boot goes on without; NvrcError when the rule does not hold. `ledger`: those of the bus."""
    faulty = [gpu for gpu in gpus if gpu.error]
    listed = {gpu.bdf for gpu in gpus if gpu.bdf}
    on_bus = {record.bdf for record in ledger}
    strange = sorted(name_place(gpu.bdf, gpu.uuid) for gpu in gpus if gpu.bdf and gpu.bdf not in on_bus)
    if strange:
        raise NvrcError("E_GPU_COUNT", f"the driver lists {', '.join(strange)}, which the scan of the bus did not see",
                        "check the VM's devices on the host; no GPU may be plugged in during boot")
    # A GPU whose very handle is refused has no bus id: then its number and its bus id are told apart from each other.
    missing = [record for record in ledger if record.bdf not in listed]
    ready = len({gpu.bdf for gpu in gpus if not gpu.error} & on_bus)
    if not rule.holds(ready, len(on_bus)):
        raise _refusal(faulty, missing, f"{ready} of {len(on_bus)} GPUs answer, {asked('gpus', rule)}")
    return (*(make_trouble(SILENT, f"{gpu.label} is left out: {gpu.error}", gpu=gpu.bdf, uuid=gpu.uuid)
              for gpu in faulty),
            *(make_trouble(SILENT, f"NVIDIA's library does not list {record.place}", gpu=record.bdf, uuid=record.uuid)
              for record in missing))


def _refusal(faulty: list[NvmlGpu], missing: list[GpuRecord], counted: str) -> NvrcError:
    absent = f"; not listed: {', '.join(record.place for record in missing)}" if missing else ""
    if faulty:
        reasons = "; ".join(f"{gpu.label}: {gpu.error}" for gpu in faulty)
        return NvrcError("E_GPU_NVML", f"{counted}; {reasons}{absent}")
    if not missing:  # all that are on the bus answer, and the line says another number
        return NvrcError("E_GPU_COUNT", counted, "pass as many GPUs to the VM as nvrc.gpus says, or correct it")
    return NvrcError("E_GPU_COUNT", counted + absent)
