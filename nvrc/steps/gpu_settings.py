# SPDX-License-Identifier: Apache-2.0
"""Step `gpu-settings`: the first words with NVIDIA's library. Which GPUs are up, then clocks, power and MIG.

After nvidia-persistenced, whose attach a confidential GPU allows only once. All GPUs are tried before a failure ends
the boot, so that one boot shows every mistake.
"""

from __future__ import annotations

from guest_cdi.lean.light import Sequence
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, replace
from nvrc.hardware.device_nodes import make_capability_nodes
from nvrc.hardware.gpu_files import read_driver
from nvrc.machine.system import System
from nvrc.nvml.answers import Applied, MigMade, NvmlGpu
from nvrc.nvml.client import SPARE_S, Client
from nvrc.nvml.count import check_count
from nvrc.nvml.identity import check_identities
from nvrc.params.mig import MigLayout
from nvrc.vocabulary.errors import NvrcError

# Field of Settings, parameter, unit.
NAMES = {
    "memory_clock_mhz": ("nvrc.smi.lmc", "MHz"),
    "gpu_clock_mhz": ("nvrc.smi.lgc", "MHz"),
    "power_limit_w": ("nvrc.smi.pl", "W"),
}


def run(system: System, facts: Facts) -> Facts:
    client = client_of(facts)
    gpus = client.gpus()
    check_identities(gpus, read_driver(system, facts.on_bus))
    left_out = check_count(gpus, facts.on_bus, facts.settings.gpus)
    facts = replace(facts, gpus=gpus, warnings=facts.warnings + left_out)
    applied = _set(client, facts)
    mig = _cut(client, facts)
    if any(row.changed for row in mig):
        make_capability_nodes(system)
    return replace(facts, gpu_settings=applied, mig=mig, warnings=facts.warnings + _remarks(applied))


def deadline_s(facts: Facts) -> float:
    """Three requests: who is there, settings, MIG."""
    return 3 * facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`8 GPUs, nvrc.smi.pl=500, MIG on 2`"""
    up = sum(not gpu.error for gpu in facts.gpus or ())
    asked = dict.fromkeys(f"{NAMES[row.setting][0]}={row.asked}" for row in facts.gpu_settings or ())
    cut = sum(bool(row.profiles) for row in facts.mig or ())
    return ", ".join([f"{up} GPU{'' if up == 1 else 's'}", *asked, *([f"MIG on {cut}"] if cut else [])])


def _set(client: Client, facts: Facts) -> tuple[Applied, ...]:
    settings = facts.settings
    asked = {name: value for name in NAMES if (value := getattr(settings, name)) is not None}
    if not asked:
        return ()
    applied = client.apply_settings(facts.usable, asked)
    _check_complete("settings", [(row.number, row.setting, row.asked) for row in applied],
                    [(number, name, value) for number in facts.usable for name, value in asked.items()])
    failed = [f"{_label(facts, row.number)}: {_parameter(row)}: {row.error}" for row in applied if row.error]
    if failed:
        raise NvrcError("E_GPU_SETTING", "; ".join(failed))
    return applied


def _cut(client: Client, facts: Facts) -> tuple[MigMade, ...]:
    layout = facts.settings.mig
    if layout is None:
        return ()
    _check_numbers(layout, facts.gpus or ())
    plan = [(number, profiles) for number in facts.usable if (profiles := layout.profiles(number)) is not None]
    made = client.make_mig(plan)
    _check_complete("mig", [row.number for row in made], [number for number, _ in plan])
    failed = [f"{_label(facts, row.number)}: {row.error}" for row in made if row.error]
    if failed:
        raise NvrcError("E_MIG", "; ".join(failed))
    return made


def _check_complete(name: str, answered: Sequence[object], asked: Sequence[object]) -> None:
    """A setting that was not made on one GPU must not pass because it was made twice on another."""
    if sorted(map(str, answered)) != sorted(map(str, asked)):
        raise NvrcError("E_NVML_CRASH", f"the worker was asked for {len(asked)} rows of {name!r} and answered others: "
                                        f"{ascii(answered)[:80]}")


def _check_numbers(layout: MigLayout, gpus: tuple[NvmlGpu, ...]) -> None:
    beyond = [rule.text() for rule in layout.rules if rule.gpus and rule.gpus[1] >= len(gpus)]
    if beyond:
        raise NvrcError("E_MIG", f"nvrc.mig names a GPU that is not there: {', '.join(beyond)}; the numbers are 0 to "
                                 f"{len(gpus) - 1}")


def _remarks(applied: tuple[Applied, ...]) -> tuple[str, ...]:
    """Clocks are rounded to what the GPU has, or follow with the next load; a sentence per kind, not per GPU."""
    odd: dict[str, list[int]] = {}
    for row in applied:
        if row.got not in (row.asked, -1):
            odd.setdefault(f"{_parameter(row)}: accepted; the clock reads {row.got} {NAMES[row.setting][1]}",
                           []).append(row.number)
    return tuple(f"{text} on GPU {', '.join(map(str, numbers))}" for text, numbers in odd.items())


def _parameter(row: Applied) -> str:
    return f"{NAMES[row.setting][0]}={row.asked}"


def _label(facts: Facts, number: int) -> str:
    return next((gpu.label for gpu in facts.gpus or () if gpu.number == number), f"GPU {number}")
