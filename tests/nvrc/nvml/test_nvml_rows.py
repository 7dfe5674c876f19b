# SPDX-License-Identifier: Apache-2.0
"""The four steps as rows of a table, on the threads of the real executor, with the real worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest
from fakes.steps import Doing
from nvrc.engine.conditions import always
from nvrc.engine.executor import BootError, Executor, Record
from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import Step
from nvrc.machine.loop import Loop
from nvrc.machine.system import System

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

ROWS = (
    Step("gpu-settings", needs=("device-nodes",), blocks=always),
    Step("cc-check", needs=("gpu-settings",), blocks=always),
    Step("cdi", needs=("cc-check",), blocks=always),
    Step("ready-state", needs=("cdi",), blocks=always),
)


@pytest.fixture
def loop(gpu_guest: MakeGuest) -> Iterator[Loop]:
    loop = Loop(lambda: 0.0)
    yield loop
    loop.close()


def run(guest: GpuGuest, loop: Loop) -> tuple[Executor, list[Record]]:
    """What comes before is one row that knows it all, and starts the worker."""
    def prepare(_system: System, facts: Facts) -> Facts:
        worker = guest.start()
        known = guest.facts
        return replace(facts, parameters=known.parameters, topology=known.topology, ledger=known.ledger, worker=worker)

    told: list[Record] = []
    table = (Step("device-nodes", does=Doing(prepare)), *ROWS)
    executor = Executor(guest.system, loop, table, finished=lambda record, _facts: told.append(record),
                        alarm=lambda _limit_s: None)
    return executor, told


def test_the_steps_of_a_confidential_boot(gpu_guest: MakeGuest, loop: Loop) -> None:
    guest = gpu_guest("nvrc.smi.srs=1 nvrc.cc=on nvrc.smi.pl=500", text=CONFIDENTIAL, keys="cc=on")
    executor, told = run(guest, loop)
    facts = executor.run()
    assert [(record.name, record.outcome) for record in told] == [
        ("device-nodes", "ok"), ("gpu-settings", "ok"), ("cc-check", "ok"), ("cdi", "ok"), ("ready-state", "ok")]
    assert [record.detail for record in told][1:3] == ["2 GPUs, nvrc.smi.pl=500", "on"]
    assert told[4].detail == "set: nvrc.smi.srs=1; GPU count, attach and mode on verified; at 100.0 s; read back: ready"
    assert facts.ready is not None and facts.ready.accepts


@pytest.mark.parametrize(("text", "step", "code"), [
    ("crash nvmlInitWithFlags", "gpu-settings", "E_NVML_CRASH"),
    ("crash nvmlSystemGetConfComputeState", "cc-check", "E_NVML_CRASH"),
    ("fail nvmlSystemGetDriverVersion 999", "cdi", "E_CDI_NVML"),
])
def test_a_failure_ends_the_boot_in_its_step(gpu_guest: MakeGuest, loop: Loop, text: str, step: str, code: str) -> None:
    executor, _told = run(gpu_guest(text=text), loop)
    with pytest.raises(BootError) as caught:
        executor.run()
    assert (caught.value.trouble.step, caught.value.trouble.code) == (step, code)
    assert caught.value.trouble.hint
