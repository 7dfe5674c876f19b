# SPDX-License-Identifier: Apache-2.0
"""The GPUs as a boot leaves them: attached, answering, described to containers; or the code of what they lack."""

from __future__ import annotations

from guest_cdi.lean.light import replace
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import gpus_on_bus
from nvrc.machine.system import Readable
from nvrc.nvml.count import NOT_DESCRIBED, SILENT
from nvrc.nvml.identity import Sets, check_sets
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import GpuRecord, GpuState


def ledger_of(facts: Facts) -> tuple[GpuRecord, ...] | None:
    """The attach ledger, less the GPUs that NVIDIA's library or the CDI document goes without: nobody can use those."""
    if facts.ledger is None or facts.gpus is None:
        return facts.ledger
    faulty = {gpu.bdf for gpu in facts.gpus if facts.cdi and gpu.number in facts.cdi.faulty}
    answering = {gpu.bdf for gpu in facts.gpus if not gpu.error}
    return tuple(_without(record, SILENT) if record.bdf not in answering else
                 _without(record, NOT_DESCRIBED) if record.bdf in faulty else record for record in facts.ledger)


def _without(record: GpuRecord, code: str) -> GpuRecord:
    return record if record.code else replace(record, state=GpuState.FAILED, code=code)


def collect(facts: Facts) -> Sets:
    """Which GPUs each part of the boot speaks of."""
    faulty = facts.cdi.faulty if facts.cdi else ()
    answering = [gpu for gpu in facts.gpus or () if not gpu.error]
    return Sets(
        on_bus=frozenset(facts.on_bus),
        attached=frozenset(record.bdf for record in facts.ledger or () if record.state is GpuState.ATTACHED),
        answering=frozenset(gpu.bdf for gpu in answering),
        checked=frozenset(facts.cc_checked or ()),
        given=frozenset(gpu.bdf for gpu in answering if gpu.number not in faulty) if facts.cdi else frozenset())


def check_gpus(system: Readable, facts: Facts) -> Sets:
    """All parts of the boot speak of the same GPUs. The bus as it is now: one that came since was asked nothing."""
    scanned, now = collect(facts), gpus_on_bus(system)
    sets = scanned._replace(on_bus=now)
    try:
        check_sets(sets, facts.settings.gpus, {record.bdf: record.uuid for record in facts.ledger or ()})
    except NvrcError as err:
        if now == scanned.on_bus:
            raise
        raise NvrcError(err.code, err.what, "give the VM its GPUs before it starts, and take none away while it boots"
                        ) from err
    return sets


def check_every_gpu(system: Readable, facts: Facts) -> None:
    """The same where none may be left out, however few `nvrc.gpus` asks for."""
    if unchecked := check_gpus(system, facts).unchecked:
        raise NvrcError("E_READY_STATE", f"{', '.join(unchecked)} was not checked, and the state covers every GPU "
                        "of the VM", "replace the GPU, or pass fewer to the VM")
