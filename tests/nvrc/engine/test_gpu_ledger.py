# SPDX-License-Identifier: Apache-2.0
"""What a boot says of each GPU in the end, from what its steps found; and which GPUs each of them spoke of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from nvrc.engine.facts import Facts
from nvrc.engine.ledger import check_every_gpu, check_gpus, collect, ledger_of
from nvrc.hardware.topology import PciFunction, Topology
from nvrc.nvml.answers import CdiMade, NvmlGpu
from nvrc.nvml.identity import Sets
from nvrc.params.parse import parse
from nvrc.params.policy import NO_POLICY
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.paths import PCI_DEVICES

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


# The bus as it is when the state is to be set.

NETWORK = "0000:60:00.0"


def bus_of(folder: Path, *gpus: str) -> FakeSystem:
    system = FakeSystem(str(folder))
    for bdf, vendor, kind in (*((gpu, "0x10de", "0x030200") for gpu in gpus), (NETWORK, "0x15b3", "0x020000")):
        for name, value in (("vendor", vendor), ("device", "0x2330"), ("class", kind)):
            system.put(f"{PCI_DEVICES}/{bdf}/{name}", f"{value}\n")
    return system


def whole(rule: str = "") -> Facts:
    """Two GPUs that are all that they should be; `rule`: what the line asks for."""
    gpus = (gpu(0), gpu(1))
    return Facts(parameters=parse(rule.encode(), NO_POLICY), topology=Topology(gpus=FACTS.topology.gpus[:2] if FACTS.topology else ()),
                 ledger=tuple(GpuRecord(bdf=bdf, state=ATTACHED, uuid=f"GPU-{bdf}") for bdf in BUS[:2]), gpus=gpus, cc_checked=BUS[:2], cdi=MADE._replace(faulty=()))


@pytest.mark.parametrize("check", [check_gpus, check_every_gpu])
@pytest.mark.parametrize(("now", "words"), [
    (BUS[:3], f"{BUS[2]}: not attached by nvidia-persistenced"), (BUS[:1], f"GPU-{BUS[1]})"), ((), "not on the bus"),
])
def test_a_bus_that_has_changed_since_the_scan(tmp_path: Path, check: Callable[[FakeSystem, Facts], object], now: tuple[str, ...],
                                               words: str) -> None:
    with pytest.raises(NvrcError) as caught:
        check(bus_of(tmp_path, *now), whole())
    assert (caught.value.code, words in caught.value.what) == ("E_GPU_IDENTITY", True), caught.value.what
    assert caught.value.hint.startswith("give the VM its GPUs before it starts")


def test_sets_that_differ_on_an_unchanged_bus_are_the_librarys(tmp_path: Path) -> None:
    with pytest.raises(NvrcError) as caught:
        check_gpus(bus_of(tmp_path, *BUS[:2]), replace(whole(), cc_checked=BUS[:1]))
    assert caught.value.hint.startswith("use a driver and a library of one release")


def test_the_bus_of_the_scan_is_one_set_with_all_others(tmp_path: Path) -> None:
    system = bus_of(tmp_path, *BUS[:2])
    assert check_gpus(system, whole()).unchecked == ()
    check_every_gpu(system, whole())


def test_where_fewer_gpus_suffice_one_that_came_since_is_unchecked(tmp_path: Path) -> None:
    system, facts = bus_of(tmp_path, *BUS[:3]), whole("nvrc.gpus=min:2")
    assert check_gpus(system, facts).unchecked == (BUS[2],)
    with pytest.raises(NvrcError, match=f"{BUS[2]} was not checked") as caught:
        check_every_gpu(system, facts)
    assert caught.value.code == "E_READY_STATE"
