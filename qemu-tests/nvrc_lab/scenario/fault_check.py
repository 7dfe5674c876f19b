# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a fault as a scenario asks for it: something missing, too much, or not there to be broken."""

from __future__ import annotations

from collections.abc import Iterator

from nvrc_lab.scenario.faults import FAULTS, MODULES, PERSISTENCED, PHASES, PROGRAMS, SIGNALS
from nvrc_lab.scenario.values import GPU_EXTENSION, REAL, Fault, Scenario

# A row may narrow itself to a GPU or a value that it does not need.
_OPTIONAL = {"nvml-fails": ("gpu",), "nvml-hangs": ("gpu",), "nvml-crashes": ("gpu",), "nvml-slow": ("gpu",)}


def check_fault(fault: Fault, scenario: Scenario) -> Iterator[str]:
    """What is missing, too much, or not there to be broken. An unknown name is reported elsewhere."""
    row = FAULTS.get(fault.name)
    if row is None:
        return
    given = {"gpu": fault.gpu is not None, "program": bool(fault.program), "call": bool(fault.call),
             "value": bool(fault.value)}
    for name, is_given in given.items():
        if name in row.needs and not is_given:
            yield f"{fault.name} needs {name}"
        elif is_given and name not in (*row.needs, *_OPTIONAL.get(fault.name, ())):
            yield f"{fault.name} takes no {name}"
    count = sum(gpu.count for gpu in scenario.machine.gpus)
    if fault.gpu is not None and not 0 <= fault.gpu < count:
        yield f"gpu {fault.gpu}: the machine has {count}, counted from 0"
    if fault.name.startswith("module-"):
        yield from _check_module(fault.value, scenario)
    if fault.program and fault.program not in PROGRAMS:
        yield f"program {fault.program!r} is not one of {', '.join(PROGRAMS)}"
    if fault.name in SIGNALS and fault.value and fault.value not in PHASES:
        yield f"value {fault.value!r} is not one of {', '.join(PHASES)}"
    if fault.value == "attaching" and fault.name in SIGNALS and fault.program != PERSISTENCED:
        yield f"{fault.program} attaches no GPU, only {PERSISTENCED} does"


def _check_module(name: str, scenario: Scenario) -> Iterator[str]:
    """A file laid over the image, and so over nothing where the driver comes from elsewhere."""
    if name not in MODULES:
        yield f"module {name!r} is not one of {', '.join(MODULES)}"
    elif scenario.driver == REAL:
        yield "NVIDIA's own modules are left alone"
    elif name.startswith("nvidia") and any(row.name == GPU_EXTENSION for row in scenario.machine.extensions):
        yield f"{name} comes from the GPU extension here; a module tree for another kernel is a damage of that"
