# SPDX-License-Identifier: Apache-2.0
"""What a VM that is up lacks: helpers not started, daemons ended, GPUs failed. With codes and advice."""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, Iterator
from nvrc.report.report import StepRecord
from nvrc.report.status import ServiceRecord, ServiceState
from nvrc.vocabulary.errors import find_code, make_trouble
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble
from nvrc.vocabulary.verdict import Outcome

AGENT = "agent"


def list_troubles(steps: Iterable[StepRecord], gpus: Iterable[GpuRecord], services: Iterable[ServiceRecord] = (),
                  told: tuple[Trouble, ...] = ()) -> tuple[Trouble, ...]:
    """Of steps, daemons, GPUs. `told`: what was said of them meanwhile."""
    return (*_of_steps(steps, told), *_of_services(services), *_of_gpus(gpus, told))


def _of_steps(steps: Iterable[StepRecord], told: tuple[Trouble, ...]) -> Iterator[Trouble]:
    for step in steps:
        if step.outcome is Outcome.WARN:
            known = (one for one in told if (one.code, one.step, one.what) == (step.code, step.name, step.detail))
            yield next(known, _make(step.code, step.name, step.detail))


def _of_services(services: Iterable[ServiceRecord]) -> Iterator[Trouble]:
    for service in services:
        if service.state is ServiceState.FAILED and service.name != AGENT:
            yield make_trouble("E_SERVICE_LOST", f"{service.name} {service.detail}", step=AFTER_THE_BOOT,
                               service=service.name)


def _of_gpus(gpus: Iterable[GpuRecord], told: tuple[Trouble, ...]) -> Iterator[Trouble]:
    for gpu in gpus:
        if gpu.code:
            known = (one for one in told if (one.code, one.gpu) == (gpu.code, gpu.bdf))
            yield next(known, _make(gpu.code, AFTER_THE_BOOT, f"GPU {gpu.place} {gpu.state.value}", gpu))


def _make(code: str, step: str, what: str, gpu: GpuRecord | None = None) -> Trouble:
    """Of a record, whose code another version may have written."""
    row = find_code(code)
    return Trouble(code=code, step=step, what=what, hint=row.remedy if row else "", gpu=gpu.bdf if gpu else "",
                   uuid=gpu.uuid if gpu else "")
