# SPDX-License-Identifier: Apache-2.0
"""The same GPUs from the bus to the CDI document: lists that contradict themselves, first by table, then by a library."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest, bus_id
from fakes.trouble import told
from nvrc.hardware.gpu_files import Told
from nvrc.nvml.answers import NvmlGpu
from nvrc.nvml.identity import Sets, check_identities, check_sets, is_bus_id, is_uuid
from nvrc.nvml.readiness import Outcome
from nvrc.nvml.worker import Worker
from nvrc.params.values import CountRule, GpuCount
from nvrc.steps import cdi, gpu_settings
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import GpuRecord, GpuState

UUID = "GPU-00000000-0000-4000-8000-00000000000"
FIRST = NvmlGpu(0, "0000:40:00.0", f"{UUID}0", "H100", 0, "")
SECOND = NvmlGpu(1, "0000:41:00.0", f"{UUID}1", "H100", 1, "")
REFUSED = NvmlGpu(1, "", "", "", -1, "nvmlDeviceGetName returned 15")
BUS = {FIRST.bdf: Told("", ""), SECOND.bdf: Told("", "")}


@pytest.mark.parametrize("gpus", [
    pytest.param((FIRST, SECOND), id="two"), pytest.param((FIRST,), id="one of two"), pytest.param((FIRST, REFUSED), id="refused"),
    pytest.param((), id="none"), pytest.param((FIRST, REFUSED._replace(bdf=SECOND.bdf)), id="refused after its bus id"),
    pytest.param((FIRST._replace(minor=1), SECOND._replace(minor=0)), id="minors against the order"),
    pytest.param((FIRST, REFUSED, REFUSED._replace(number=2)), id="two refused"),
    pytest.param((FIRST, SECOND._replace(minor=253)), id="the last minor there is"),
])
def test_lists_that_are_right(gpus: tuple[NvmlGpu, ...]) -> None:
    check_identities(gpus, BUS)


@pytest.mark.parametrize(("gpus", "words"), [
    pytest.param((FIRST, FIRST, SECOND), "bus id '0000:40:00.0' is listed 2 times", id="a GPU twice"),
    pytest.param((FIRST, SECOND._replace(bdf=FIRST.bdf)), "bus id '0000:40:00.0' is listed 2 times", id="bus id"),
    pytest.param((FIRST, REFUSED._replace(bdf=FIRST.bdf)), "bus id '0000:40:00.0' is listed 2 times", id="bus id of a refused one"),
    pytest.param((FIRST, SECOND._replace(number=0)), "GPU number '0' is listed 2 times", id="number"),
    pytest.param((FIRST, SECOND._replace(uuid=FIRST.uuid)), "is listed 2 times", id="UUID"),
    pytest.param((FIRST, SECOND._replace(minor=0)), "minor '0' is listed 2 times", id="minor"),
    pytest.param((FIRST, SECOND._replace(bdf="")), "GPU 1 has the invalid bus id ''", id="no bus id"),
    pytest.param((FIRST, SECOND._replace(bdf="41:00.0")), "the invalid bus id '41:00.0'", id="short bus id"),
    pytest.param((FIRST, SECOND._replace(bdf="0000:41:00.0\nnvrc: READY")), r"invalid bus id '0000:41:00.0\nnvrc", id="two lines"),
    pytest.param((FIRST, SECOND._replace(uuid="")), "the invalid UUID ''", id="no UUID"),
    pytest.param((FIRST, SECOND._replace(uuid="GPU-1")), "the invalid UUID 'GPU-1'", id="short UUID"),
    pytest.param((FIRST, SECOND._replace(uuid=f"MIG-{UUID[4:]}1")), "the invalid UUID 'MIG-", id="UUID of an instance"),
    pytest.param((FIRST, SECOND._replace(number=2)), "GPU 2 has the invalid number 2", id="number beyond"),
    pytest.param((FIRST._replace(number=-1), SECOND), "invalid number -1", id="negative number"),
    pytest.param((FIRST, SECOND._replace(minor=-1)), "the invalid minor -1", id="no minor"),
    pytest.param((FIRST, SECOND._replace(minor=255)), "the invalid minor 255", id="minor of the control node"),
    pytest.param((FIRST, SECOND._replace(minor=254)), "the invalid minor 254", id="minor of the mode setting node"),
    pytest.param((FIRST, REFUSED._replace(bdf="41:00.0")), "the invalid bus id '41:00.0'", id="short bus id of a refused one"),
    pytest.param((FIRST, REFUSED._replace(uuid="GPU-1")), "the invalid UUID 'GPU-1'", id="short UUID of a refused one"),
    pytest.param((FIRST, REFUSED._replace(minor=-2)), "the invalid minor -2", id="minor of a refused one"),
    pytest.param((FIRST, SECOND._replace(uuid="x" * 99)), f"the invalid UUID '{'x' * 48}'", id="endless UUID"),
])
def test_lists_that_contradict_themselves(gpus: tuple[NvmlGpu, ...], words: str) -> None:
    with pytest.raises(NvrcError) as caught:
        check_identities(gpus, BUS)
    assert caught.value.code == "E_GPU_IDENTITY"
    assert words in caught.value.what


@pytest.mark.parametrize(("told", "words"), [
    (Told(f"{UUID}0", "0"), ""), (Told("", ""), ""), (Told(f"{UUID}0", ""), ""),
    (Told(f"{UUID}7", ""), f"GPU 0 0000:40:00.0 has UUID '{UUID}0', the driver says '{UUID}7'"),
    (Told("", "3"), f"GPU 0 0000:40:00.0 has the UUID '{UUID}0' and minor '0', the driver says '3'"),
])
def test_the_driver_is_asked_as_well(told: Told, words: str) -> None:
    if not words:
        check_identities((FIRST,), {FIRST.bdf: told})
        return
    with pytest.raises(NvrcError) as caught:
        check_identities((FIRST,), {FIRST.bdf: told})
    assert words in caught.value.what


@pytest.mark.parametrize(("text", "is_one"), [
    ("0000:41:00.0", True), ("10000:41:00.0", True), ("abcdef01:ff:1f.7", True), ("000:41:00.0", False),
    ("100000000:41:00.0", False), ("000g:41:00.0", False), ("0000:4:00.0", False), ("0000:41:0.0", False),
    ("0000:41:00.", False), ("0000:41:00.00", False), ("0000:4g:00.0", False), ("0000:AB:00.0", False), ("0000-41-00-0", False),
])
def test_bus_ids_are_those_of_sysfs(text: str, is_one: bool) -> None:
    assert is_bus_id(text) is is_one


@pytest.mark.parametrize(("text", "is_one"), [
    (f"{UUID}a", True), (f"{UUID}A", True), (f"{UUID}g", False), (f"{UUID}00", False), (UUID, False), (UUID[4:] + "0", False),
    (f"{UUID}0".replace("-0000", "", 1), False),
])
def test_uuids_are_those_of_nvidias_library(text: str, is_one: bool) -> None:
    assert is_uuid(text) is is_one


@given(st.text(max_size=14), st.text(max_size=40))
def test_any_text_is_judged(bus: str, uuid: str) -> None:
    assert not is_bus_id(bus) or bus.isascii()
    assert not is_uuid(uuid)


A, B = FIRST.bdf, SECOND.bdf
BOTH, ONE = frozenset((A, B)), frozenset((A,))
ALL, ANY = GpuCount(CountRule.ALL), GpuCount(CountRule.AT_LEAST, 1)


@pytest.mark.parametrize(("sets", "rule", "words"), [
    (Sets(BOTH, BOTH, BOTH, BOTH, BOTH), ALL, ""),
    (Sets(BOTH, BOTH, ONE, ONE, ONE), ANY, ""),
    (Sets(BOTH, ONE, BOTH, BOTH, BOTH), ALL, f"{B}: not attached by nvidia-persistenced"),
    (Sets(BOTH, ONE, BOTH, BOTH, BOTH), ANY, f"{B}: not attached by nvidia-persistenced"),
    (Sets(BOTH, BOTH, BOTH, ONE, BOTH), ANY, f"{B}: its confidential mode was not read"),
    (Sets(ONE, BOTH, BOTH, BOTH, BOTH), ANY, f"{B}: not on the bus"),
    (Sets(BOTH, BOTH, ONE, BOTH, BOTH), GpuCount(CountRule.EXACTLY, 2), f"{B}: not listed by NVIDIA's library"),
    (Sets(BOTH, BOTH, BOTH, BOTH, ONE), ALL, f"{B}: not in the CDI document"),
    (Sets(BOTH, frozenset((B,)), BOTH, BOTH, BOTH), ALL, f"{A} ({UUID}0): not attached by nvidia-persistenced"),
    (Sets(BOTH, BOTH, BOTH, BOTH, ONE), GpuCount(CountRule.AT_LEAST, 2), "1 of 2 GPUs are left, nvrc.gpus=min:2"),
    (Sets(BOTH, BOTH, frozenset(), frozenset(), frozenset()), ALL, "0 of 2 GPUs are left"),
])
def test_one_set(sets: Sets, rule: GpuCount, words: str) -> None:
    if not words:
        check_sets(sets, rule, {A: f"{UUID}0"})
        return
    with pytest.raises(NvrcError) as caught:
        check_sets(sets, rule, {A: f"{UUID}0"})
    assert caught.value.code == "E_GPU_IDENTITY"
    assert words in caught.value.what


# A library that lies, with the real worker

worker_tier = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]
SETS_READY = "nvmlSystemSetConfComputeGpusReadyState"


def refusal(guest: GpuGuest) -> NvrcError:
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    return caught.value


class TestLibrary:
    pytestmark = worker_tier

    @pytest.mark.parametrize(("text", "words"), [
        pytest.param(f"gpu 2 bus={bus_id(0)} minor=2 cc=on", "bus id '0000:1a:00.0' is listed 2 times", id="a GPU in place of another"),
        pytest.param(f"gpu 2 bus={bus_id(2)} minor=0 cc=on", "minor '0' is listed 2 times", id="the node of another"),
        pytest.param(f"gpu 2 bus={bus_id(2)} minor=2 uuid=x cc=on", "invalid UUID 'x'", id="no UUID"),
    ])
    def test_a_list_with_a_lie_never_makes_gpus_ready(self, gpu_guest: MakeGuest, text: str, words: str) -> None:
        guest = gpu_guest("nvrc.gpus=min:1 nvrc.cc=on nvrc.ready=verified", on_bus=3, keys="cc=on", text=f"{text}\n{CONFIDENTIAL}")
        caught = refusal(guest)
        assert caught.code == "E_GPU_IDENTITY"
        assert words in caught.what
        assert SETS_READY not in guest.mock.names()

    def test_the_drivers_own_file_disagrees(self, gpu_guest: MakeGuest) -> None:
        guest = gpu_guest()
        guest.system.put(f"/proc/driver/nvidia/gpus/{bus_id(1)}/information", f"GPU UUID: \t {UUID}9\nDevice Minor: \t 0\n")
        assert f"GPU 1 0000:1b:00.0 has UUID '{UUID}1', the driver says '{UUID}9'" in refusal(guest).what

    @pytest.mark.parametrize("rule", ["verified", "attested"])
    def test_a_gpu_that_persistenced_could_not_attach_is_not_made_ready(self, gpu_guest: MakeGuest, rule: str) -> None:
        guest = gpu_guest(f"nvrc.gpus=min:1 nvrc.cc=on nvrc.ready={rule}", keys="cc=on", text=CONFIDENTIAL)
        failed = GpuRecord(bdf=bus_id(1), uuid=f"{UUID}1", state=GpuState.FAILED, code="E_GPU_ATTACH")
        guest.facts = replace(guest.facts, ledger=(GpuRecord(bdf=bus_id(0), state=GpuState.ATTACHED), failed))
        assert refusal(guest).what == ("the ready state would cover GPUs that were not checked: 0000:1b:00.0 "
                                       f"({UUID}1): not attached by nvidia-persistenced")
        assert SETS_READY not in guest.mock.names()

    def test_a_gpu_that_the_library_hides_leaves_the_state_as_it_is(self, gpu_guest: MakeGuest) -> None:
        guest = gpu_guest("nvrc.gpus=min:1 nvrc.cc=on nvrc.ready=verified", gpus=1, on_bus=2, keys="cc=on", text=CONFIDENTIAL)
        facts = guest.boot()
        assert facts.ready is not None and facts.ready.outcome is Outcome.LEFT
        assert told(facts.warnings)[-1] == ("ready state left: nvrc.ready=verified, but 0000:1b:00.0 was not checked, and the state covers "
                                      "every GPU of the VM")
        assert SETS_READY not in guest.mock.names()

    def test_gpus_of_which_the_library_hides_one_are_not_held_for_attestation(self, gpu_guest: MakeGuest) -> None:
        guest = gpu_guest("nvrc.gpus=min:1 nvrc.cc=on nvrc.ready=attested", gpus=1, on_bus=2, keys="cc=on", text=CONFIDENTIAL)
        caught = refusal(guest)
        assert (caught.code, caught.what) == (
            "E_READY_STATE", "0000:1b:00.0 was not checked, and the state covers every GPU of the VM")

    def test_a_setting_made_twice_on_one_gpu(self, gpu_guest: MakeGuest) -> None:
        guest = gpu_guest("nvrc.smi.pl=500")
        worker = guest.start()

        class Lazy(Worker):
            def ask(self, name: str, deadline_s: float, **given: object) -> object:
                answer = worker.ask(name, deadline_s, **given)
                assert isinstance(answer, list)
                return answer[:1] * 2 if name == "settings" else answer

        with pytest.raises(NvrcError, match="asked for 2 rows of 'settings' and answered others") as caught:
            gpu_settings.run(guest.system, replace(guest.facts, worker=Lazy(guest.system, -1, -1, -1)))
        assert caught.value.code == "E_NVML_CRASH"

    def test_a_document_about_other_gpus(self, gpu_guest: MakeGuest) -> None:
        guest = gpu_guest()
        facts = guest.boot(2)

        class Shifty(Worker):
            def ask(self, name: str, deadline_s: float, **given: object) -> object:
                assert facts.worker is not None
                answer = facts.worker.ask(name, deadline_s, **given)
                assert isinstance(answer, dict)
                *rest, gpus = answer["made"]
                return {**answer, "made": [*rest, [gpus[0], gpus[0]]]}

        with pytest.raises(NvrcError) as caught:
            cdi.run(guest.system, replace(facts, worker=Shifty(guest.system, -1, -1, -1)))
        assert caught.value.code == "E_GPU_IDENTITY"
        assert caught.value.what.startswith("the CDI document is not about the GPUs that were checked")


@pytest.mark.parametrize("without", ["attached", "answering", "checked", "given"])
def test_a_gpu_that_one_set_lacks_is_unchecked(without: str) -> None:
    both = frozenset({FIRST.bdf, SECOND.bdf})
    assert Sets(both, both, both, both, both).unchecked == ()
    assert Sets(both, both, both, both, both)._replace(**{without: frozenset({FIRST.bdf})}).unchecked == (SECOND.bdf,)


def test_steps_in_order() -> None:
    """What the ready step asserts was found by the steps before it."""
    from nvrc.boot import BOOT

    names = [step.name for step in BOOT]
    assert names.index("gpu-settings") < names.index("cc-check") < names.index("cdi") < names.index("ready-state")
