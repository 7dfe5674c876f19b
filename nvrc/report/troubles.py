# SPDX-License-Identifier: Apache-2.0
"""What a VM that is up lacks: helpers not started, daemons ended, GPUs failed. With codes and advice."""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, Iterator
from nvrc.report.report import Failure, StepRecord
from nvrc.report.status import ServiceRecord, ServiceState
from nvrc.vocabulary.errors import find_code
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.verdict import Outcome

AFTER_THE_BOOT = "supervise"
SERVICE_LOST = "E_SERVICE_LOST"
AGENT = "agent"


def list_troubles(steps: Iterable[StepRecord], gpus: Iterable[GpuRecord], services: Iterable[ServiceRecord] = (),
                  news: tuple[str, ...] = ()) -> tuple[Failure, ...]:
    """Of steps, daemons, GPUs. `news`: sentences of which some begin with a code and name a GPU."""
    return (*_of_steps(steps), *_of_services(services), *_of_gpus(gpus, news))


def read_trouble(sentence: str) -> Failure | None:
    """A sentence that begins with one of our codes, as `E_GPU_LOST GPU 0000:41:00.0: Xid 79, fell off the bus`."""
    code, _, what = sentence.partition(" ")
    code = code.rstrip(":")
    row = find_code(code) if code.startswith("E_") else None
    return make_trouble(code, row.step, what) if row else None


def make_trouble(code: str, step: str, what: str) -> Failure:
    row = find_code(code)
    return Failure(code=code, step=step, what=what, hint=row.remedy if row else "")


def _of_steps(steps: Iterable[StepRecord]) -> Iterator[Failure]:
    yield from (make_trouble(step.code, step.name, step.detail) for step in steps if step.outcome is Outcome.WARN)


def _of_services(services: Iterable[ServiceRecord]) -> Iterator[Failure]:
    for service in services:
        if service.state is ServiceState.FAILED and service.name != AGENT:
            yield make_trouble(SERVICE_LOST, AFTER_THE_BOOT, f"{service.name} {service.detail}")


def _of_gpus(gpus: Iterable[GpuRecord], news: tuple[str, ...]) -> Iterator[Failure]:
    for gpu in gpus:
        if not gpu.code:
            continue
        told = next((text for text in news if text.startswith(f"{gpu.code} ") and gpu.bdf in text),
                    f"{gpu.code} GPU {gpu.bdf} {gpu.state.value}")
        yield read_trouble(told) or make_trouble(gpu.code, AFTER_THE_BOOT, told.partition(" ")[2])
