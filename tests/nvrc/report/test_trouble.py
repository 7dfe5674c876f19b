# SPDX-License-Identifier: Apache-2.0
"""What degrades a VM, as a list of codes with causes: from steps, daemons, GPUs and the sentences about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.cases import Case
from nvrc.report.report import StepRecord
from nvrc.report.status import ServiceRecord, ServiceState
from nvrc.report.troubles import list_troubles
from nvrc.vocabulary.errors import BY_CODE, CODES, make_trouble
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.transcript import read_trouble
from nvrc.vocabulary.trouble import Trouble, remark
from nvrc.vocabulary.verdict import Outcome

GONE = GpuRecord(bdf="0000:41:00.0", state=GpuState.LOST, code="E_GPU_LOST")
WELL = GpuRecord(bdf="0000:40:00.0", state=GpuState.ATTACHED)


def service(name: str, state: ServiceState, detail: str = "") -> ServiceRecord:
    return ServiceRecord(name=name, state=state, since_s=1.0, detail=detail)


def test_a_vm_in_order_has_none() -> None:
    steps = (StepRecord(name="a", outcome=Outcome.OK), StepRecord(name="b", outcome=Outcome.SKIP))
    services = (service("agent", ServiceState.FAILED), service("x", ServiceState.RESTARTING), service("y", ServiceState.STOPPED))
    assert list_troubles(steps, (WELL,), services, (remark("nothing to see"),)) == ()


def test_steps_then_daemons_then_gpus() -> None:
    steps = (StepRecord(name="dcgm", outcome=Outcome.WARN, code="E_DCGM", detail="no DCGM"),)
    services = (service("nv-fabricmanager", ServiceState.FAILED, "was killed by SIGKILL 4.0 s after its start"),)
    news = (remark("other"), *(make_trouble("E_GPU_LOST", what, step="supervise", gpu=gpu) for what, gpu in (
        ("not this one, although it names GPU 0000:41:00.0", WELL.bdf), ("GPU 0000:41:00.0: Xid 79, fell off the bus", GONE.bdf))))
    found = list_troubles(steps, (WELL, GONE), services, news)
    assert [(one.code, one.step, one.what) for one in found] == [
        ("E_DCGM", "dcgm", "no DCGM"),
        ("E_SERVICE_LOST", "supervise", "nv-fabricmanager was killed by SIGKILL 4.0 s after its start"),
        ("E_GPU_LOST", "supervise", "GPU 0000:41:00.0: Xid 79, fell off the bus")]
    assert [one.hint for one in found] == [BY_CODE[one.code].remedy for one in found]


def test_a_trouble_that_was_told_keeps_its_advice_and_its_place() -> None:
    told = Trouble(code="E_DCGM", step="dcgm", what="no DCGM", hint="of its own", path="/bin/nv-hostengine")
    steps = (StepRecord(name="dcgm", outcome=Outcome.WARN, code="E_DCGM", detail="no DCGM"),)
    assert list_troubles(steps, (), (), (told,)) == (told,)


def test_a_gpu_without_a_sentence_has_at_least_its_state() -> None:
    (found,) = list_troubles((), (replace(GONE, uuid="GPU-1"),))
    assert (found.step, found.what, found.gpu, found.uuid) == (
        "supervise", "GPU 0000:41:00.0 (GPU-1) lost", "0000:41:00.0", "GPU-1")


@pytest.mark.parametrize("end", [" what", ": what"])
def test_a_sentence_with_a_code_of_ours_is_a_trouble_of_its_step(end: str) -> None:
    for row in CODES:
        with Case(row.code):
            found = read_trouble(row.code + end)
            assert (found.code, found.step, found.what, found.hint) == (row.code, row.step, "what", row.remedy)


@pytest.mark.parametrize("text", ["", "E_", "E_FROM_THE_FUTURE what", "e_gpu_lost what", "GPU E_GPU_LOST"])
def test_other_sentences_are_none(text: str) -> None:
    assert read_trouble(text) == remark(text)


@pytest.mark.parametrize(("what", "gpu", "uuid"), [
    ("GPU 0000:41:00.0: Xid 79", "0000:41:00.0", ""), ("GPU 0 0000:41:00.0 (GPU-0a-1): Xid 79", "0000:41:00.0", "GPU-0a-1"),
    ("missing: 0000:41:00.0 (gone), 0000:42:00.0 (gone)", "", ""), ("none of them", "", ""),
])
def test_a_sentence_about_one_gpu_says_which(what: str, gpu: str, uuid: str) -> None:
    found = read_trouble(f"E_GPU_LOST {what}")
    assert (found.what, found.gpu, found.uuid) == (what, gpu, uuid)
