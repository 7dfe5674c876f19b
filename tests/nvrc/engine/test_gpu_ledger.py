# SPDX-License-Identifier: Apache-2.0
"""What a boot says of each GPU in the end, from what its steps found; and which GPUs each of them spoke of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvrc.engine.facts import Facts
from nvrc.engine.ledger import collect, ledger_of
from nvrc.hardware.topology import PciFunction, Topology
from nvrc.nvml.answers import CdiMade, NvmlGpu
from nvrc.nvml.identity import Sets
from nvrc.vocabulary.gpu import GpuRecord, GpuState

BUS = tuple(f"0000:4{number}:00.0" for number in range(5))
ATTACHED, FAILED = GpuState.ATTACHED, GpuState.FAILED
MADE = CdiMade("0.5.0", "580", 3, 1, 1, 1, (), ("GPU 2",), (2,), ())


def gpu(number: int, error: str = "") -> NvmlGpu:
    return NvmlGpu(number, BUS[number], f"GPU-{number}", "H100", number, error)


# 0 is whole, 1 does not answer, 2 is not described, 3 is not listed, 4 did not attach.
FACTS = Facts(
    topology=Topology(gpus=tuple(PciFunction(bdf=bdf, vendor=0x10DE, device=0x2330, pci_class=0x030200) for bdf in BUS)),
    ledger=(*(GpuRecord(bdf=bdf, state=ATTACHED) for bdf in BUS[:4]), GpuRecord(bdf=BUS[4], state=FAILED, code="E_GPU_ATTACH")),
    gpus=(gpu(0), gpu(1, "lost"), gpu(2)), cc_checked=(BUS[0], BUS[2]), cdi=MADE)
ALL_ATTACHED = [(ATTACHED, "")] * 4 + [(FAILED, "E_GPU_ATTACH")]


@pytest.mark.parametrize(("facts", "expected"), [
    pytest.param(FACTS, [(ATTACHED, ""), (FAILED, "E_GPU_NVML"), (FAILED, "E_CDI_GPU_NODE"), (FAILED, "E_GPU_NVML"),
                         (FAILED, "E_GPU_ATTACH")], id="whole-boot"),
    pytest.param(replace(FACTS, cdi=None), [(ATTACHED, ""), (FAILED, "E_GPU_NVML"), (ATTACHED, ""), (FAILED, "E_GPU_NVML"),
                                            (FAILED, "E_GPU_ATTACH")], id="no-document-yet"),
    pytest.param(replace(FACTS, cdi=None, gpus=None), ALL_ATTACHED, id="no-library-yet"),
])
def test_a_gpu_has_the_first_code_that_it_was_given(facts: Facts, expected: list[tuple[GpuState, str]]) -> None:
    found = ledger_of(facts)
    assert found is not None
    assert [record.bdf for record in found] == list(BUS)
    assert [(record.state, record.code) for record in found] == expected


def test_without_an_attach_there_is_no_ledger() -> None:
    assert ledger_of(replace(FACTS, ledger=None)) is None


def test_each_part_of_the_boot_speaks_of_its_own_gpus() -> None:
    found = collect(FACTS)
    assert found == Sets(frozenset(BUS), frozenset(BUS[:4]), frozenset((BUS[0], BUS[2])), frozenset((BUS[0], BUS[2])),
                         frozenset((BUS[0],)))
    assert found.unchecked == BUS[1:]


def test_without_a_document_no_gpu_can_be_given() -> None:
    assert collect(replace(FACTS, cdi=None)).given == frozenset()


def test_a_boot_that_has_just_begun_speaks_of_none() -> None:
    assert collect(Facts()) == Sets(*[frozenset()] * 5)
