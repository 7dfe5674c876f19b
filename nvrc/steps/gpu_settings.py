# SPDX-License-Identifier: Apache-2.0
"""Step `gpu-settings`: the first words with NVIDIA's library. Which GPUs are up, then clocks, power and MIG.

After nvidia-persistenced, whose attach a confidential GPU allows only once. All GPUs are tried before a failure ends
the boot, so that one boot shows every mistake.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Sequence
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.hardware.device_nodes import make_capability_nodes
from nvrc.hardware.gpu_files import read_driver
from nvrc.machine.system import System
from nvrc.nvml.answers import Applied, MigMade, NvmlGpu
from nvrc.nvml.client import SPARE_S, Client
from nvrc.nvml.count import check_count
from nvrc.nvml.identity import check_identities
from nvrc.params.mig import MigLayout
from nvrc.params.table import asked, row_of
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.trouble import Trouble, remark

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code


def run(system: System, facts: Facts) -> Facts:
    client = client_of(facts)
    gpus = client.gpus(serials=facts.settings.metrics_port is not None)
    check_identities(gpus, read_driver(system, facts.on_bus) if facts.told is None else facts.told)
    on_bus = facts.ledger or tuple(GpuRecord(bdf=bdf) for bdf in facts.on_bus)
    left_out = check_count(gpus, on_bus, facts.settings.gpus)
    facts = replace(facts, gpus=gpus, warnings=facts.warnings + left_out)
    applied = _set(client, facts)
    facts = replace(facts, gpu_settings=applied, warnings=facts.warnings + _remarks(applied))
    _refuse("E_GPU_SETTING", facts, [(row.number, f"{_parameter(row)}: {row.error}") for row in applied if row.error])
    mig = _cut(client, facts)
    facts = replace(facts, mig=mig)
    _refuse("E_MIG", facts, [(row.number, row.error) for row in mig if row.error])
    if any(row.changed for row in mig):
        make_capability_nodes(system)
    return facts


def deadline_s(facts: Facts) -> float:
    """Three requests: who is there, settings, MIG."""
    return 3 * facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`8 GPUs, nvrc.smi.pl=500, MIG on 2`"""
    up = sum(not gpu.error for gpu in facts.gpus or ())
    wanted = dict.fromkeys(_parameter(row) for row in facts.gpu_settings or ())
    cut = sum(bool(row.profiles) for row in facts.mig or ())
    return ", ".join([f"{up} GPU{'' if up == 1 else 's'}", *wanted, *([f"MIG on {cut}"] if cut else [])])


def _set(client: Client, facts: Facts) -> tuple[Applied, ...]:
    settings = facts.settings
    every = {"memory_clock_mhz": settings.memory_clock_mhz, "gpu_clock_mhz": settings.gpu_clock_mhz,
             "power_limit_w": settings.power_limit_w}
    wanted = {field: value for field, value in every.items() if value is not None}
    if not wanted:
        return ()
    applied = client.apply_settings(facts.usable, wanted)
    _check_complete("settings", [(row.number, row.setting, row.asked) for row in applied],
                    [(number, name, value) for number in facts.usable for name, value in wanted.items()])
    return applied


def _cut(client: Client, facts: Facts) -> tuple[MigMade, ...]:
    layout = facts.settings.mig
    if layout is None:
        return ()
    _check_numbers(layout, facts.gpus or ())
    plan = [(number, profiles) for number in facts.usable if (profiles := layout.profiles(number)) is not None]
    made = client.make_mig(plan)
    _check_complete("mig", [row.number for row in made], [number for number, _ in plan])
    return made


def _refuse(code: Code, facts: Facts, failed: Sequence[tuple[int, str]]) -> None:
    """What was made all the same is kept for the report."""
    if not failed:
        return
    gpus = {gpu.number: gpu for gpu in facts.gpus or ()}
    what = "; ".join(f"{gpus[number].label}: {error}" for number, error in failed)
    numbers = {number for number, _error in failed}
    lone = gpus[failed[0][0]] if len(numbers) == 1 else None
    error = NvrcError(code, what, gpu=lone.bdf if lone else "", uuid=lone.uuid if lone else "")
    raise FailedWithFacts(error, facts)


def _check_complete(name: str, answered: Sequence[object], asked: Sequence[object]) -> None:
    """A setting that was not made on one GPU must not pass because it was made twice on another."""
    if sorted(map(str, answered)) != sorted(map(str, asked)):
        raise NvrcError("E_NVML_CRASH", f"the worker was asked for {len(asked)} rows of {name!r} and answered others: "
                                        f"{ascii(answered)[:80]}")


def _check_numbers(layout: MigLayout, gpus: tuple[NvmlGpu, ...]) -> None:
    beyond = [rule.text() for rule in layout.rules if rule.gpus and rule.gpus[1] >= len(gpus)]
    if beyond:
        raise NvrcError("E_MIG", f"{row_of('mig').name} names a GPU that does not exist: {', '.join(beyond)}; the "
                                 f"numbers are 0 to {len(gpus) - 1}")


def _remarks(applied: tuple[Applied, ...]) -> tuple[Trouble, ...]:
    """Clocks are rounded to what the GPU has, or follow with the next load; a sentence per kind, not per GPU."""
    odd: dict[str, list[int]] = {}
    for row in applied:
        if not row.error and row.got not in (row.asked, -1):
            odd.setdefault(f"{_parameter(row)}: accepted; the GPU reads {row.got} {row_of(row.setting).kind.unit}",
                           []).append(row.number)
    return tuple(remark(f"{text} on GPU {', '.join(map(str, numbers))}") for text, numbers in odd.items())


def _parameter(row: Applied) -> str:
    return asked(row.setting, row.asked)
