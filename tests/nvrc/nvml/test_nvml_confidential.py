# SPDX-License-Identifier: Apache-2.0
"""Which mode the numbers mean, what is demanded, and the ready state that follows: by table, then on the stand-in."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest, bus_id
from fakes.trouble import told
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import PciFunction
from nvrc.nvml.answers import CcMemory, CcSystem
from nvrc.nvml.judge import Confidential, Mode, judge
from nvrc.nvml.readiness import Outcome, Wish, decide
from nvrc.nvml.worker import Worker
from nvrc.params.settings import Settings
from nvrc.params.values import CcMode, ReadyRule, ReadyState
from nvrc.steps import cc_check, ready_state
from nvrc.vocabulary.errors import NvrcError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

ON = CcSystem(environment=2, feature=1, devtools=0, multi_gpu=0, cpu=2, gpus=1)
OFF = CcSystem(environment=0, feature=0, devtools=0, multi_gpu=0, cpu=0, gpus=1)
DEVTOOLS = ON._replace(environment=1, devtools=1)
PPCIE = ON._replace(multi_gpu=1)
LABELS = {0: "GPU 0", 1: "GPU 1"}


def memory(*protected: int) -> tuple[CcMemory, ...]:
    return tuple(CcMemory(number, kib) for number, kib in enumerate(protected))


@pytest.mark.parametrize(("system", "protected", "mode"), [
    pytest.param(None, (), Mode.OFF, id="not supported"),
    pytest.param(OFF, (0, 0), Mode.OFF, id="off"),
    pytest.param(OFF, (-1, -1), Mode.OFF, id="off, GPUs silent"),
    pytest.param(ON, (80, 80), Mode.ON, id="on"),
    pytest.param(ON._replace(multi_gpu=2), (80, 80), Mode.ON, id="NVLink encryption"),
    pytest.param(ON._replace(multi_gpu=-1), (80, 80), Mode.ON, id="driver without the multi-GPU question"),
    pytest.param(PPCIE, (80, 80), Mode.PPCIE, id="protected PCIe"),
    pytest.param(PPCIE._replace(feature=0, environment=0), (0, 0), Mode.PPCIE, id="protected PCIe, feature not counted"),
    pytest.param(DEVTOOLS, (80, 80), Mode.DEVTOOLS, id="developer tools"),
    pytest.param(DEVTOOLS._replace(multi_gpu=1), (80, 80), Mode.DEVTOOLS, id="developer tools beat protected PCIe"),
    pytest.param(DEVTOOLS._replace(feature=0), (0, 0), Mode.DEVTOOLS, id="developer tools with the feature off"),
])
def test_modes(system: CcSystem | None, protected: tuple[int, ...], mode: Mode) -> None:
    assert judge(system, memory(*protected), LABELS, CcMode.ANY).mode is mode


@pytest.mark.parametrize(("system", "protected", "code", "words"), [
    pytest.param(ON._replace(feature=2), (80, 80), "E_CC_UNKNOWN", "ccFeature 2, values that this program", id="feature"),
    pytest.param(ON._replace(environment=7), (80, 80), "E_CC_UNKNOWN", "environment 7", id="environment"),
    pytest.param(ON._replace(devtools=9, multi_gpu=3), (80, 80), "E_CC_UNKNOWN", "devToolsMode 9, multiGpuMode 3", id="two"),
    pytest.param(OFF._replace(devtools=4), (0, 0), "E_CC_UNKNOWN", "devToolsMode 4", id="unknown is not off either"),
    pytest.param(ON._replace(environment=1), (80, 80), "E_CC_UNKNOWN", "environment simulation, feature on", id="simulated"),
    pytest.param(ON._replace(environment=0), (80, 80), "E_CC_UNKNOWN", "environment unavailable", id="contradiction"),
    pytest.param(PPCIE._replace(environment=1), (80, 80), "E_CC_UNKNOWN", "environment simulation", id="protected PCIe, simulated"),
    pytest.param(PPCIE._replace(environment=1, feature=0), (0, 0), "E_CC_UNKNOWN", "environment simulation", id="same, feature off"),
    pytest.param(OFF._replace(multi_gpu=2), (0, 0), "E_CC_UNKNOWN", "multi-GPU NVLink encryption", id="encryption without the feature"),
    pytest.param(ON._replace(gpus=0), (80, 80), "E_CC_UNKNOWN", "GPUs not capable", id="GPUs that cannot"),
    pytest.param(ON._replace(gpus=2), (80, 80), "E_CC_UNKNOWN", "gpusCaps 2", id="unknown capability"),
    pytest.param(ON, (80, -5), "E_CC_UNKNOWN", "cannot be: GPU 1: -5 KiB", id="negative memory"),
    pytest.param(OFF, (0, -5), "E_CC_UNKNOWN", "cannot be: GPU 1: -5 KiB", id="negative memory, off"),
    pytest.param(DEVTOOLS, (0, -(1 << 63)), "E_CC_UNKNOWN", "cannot be: GPU 1", id="negative memory, developer tools"),
    pytest.param(ON, (80, -1), "E_CC_UNKNOWN", "NVML does not report protected memory on GPU 1", id="silent GPU"),
    pytest.param(ON, (80, 0), "E_CC_DISAGREE", "protected on GPU 0 and not on GPU 1", id="mixed"),
    pytest.param(ON, (1, 0), "E_CC_DISAGREE", "protected on GPU 0 and not on GPU 1", id="the smallest size there is"),
    pytest.param(PPCIE, (80, 0), "E_CC_DISAGREE", "protected on GPU 0 and not on GPU 1", id="mixed, protected PCIe"),
    pytest.param(OFF, (80, 0), "E_CC_DISAGREE", "protected on GPU 0 and not on GPU 1", id="mixed, off"),
    pytest.param(ON, (0, 0), "E_CC_DISAGREE", "no memory of it on GPU 0, GPU 1", id="GPUs against machine"),
    pytest.param(OFF, (80, 80), "E_CC_DISAGREE", "no confidential mode, but memory is protected on GPU 0", id="the reverse"),
])
def test_what_is_no_mode(system: CcSystem, protected: tuple[int, ...], code: str, words: str) -> None:
    with pytest.raises(NvrcError) as caught:
        judge(system, memory(*protected), LABELS, CcMode.ANY)
    assert caught.value.code == code
    assert words in caught.value.what


@pytest.mark.parametrize("wanted", CcMode)
@pytest.mark.parametrize(("system", "found"), [(OFF, Mode.OFF), (ON, Mode.ON), (PPCIE, Mode.PPCIE), (DEVTOOLS, Mode.DEVTOOLS)])
def test_demands(system: CcSystem, found: Mode, wanted: CcMode) -> None:
    gpus = memory(*((0, 0) if found is Mode.OFF else (80, 80)))
    if wanted is CcMode.ANY or wanted.value == found.value:
        assert judge(system, gpus, LABELS, wanted).mode is found
        return
    with pytest.raises(NvrcError, match=f"nvrc.cc={wanted.value}, but the GPUs are in mode {found.value}") as caught:
        judge(system, gpus, LABELS, wanted)
    devtools = found is Mode.DEVTOOLS and wanted is not CcMode.OFF
    assert caught.value.code == ("E_CC_DEVTOOLS" if devtools else "E_CC_MISMATCH")


number = st.integers(-1, 4)


@given(st.builds(CcSystem, number, number, number, number, number, number),
       st.lists(st.sampled_from([-1, 0, 80]), min_size=1, max_size=4), st.sampled_from(tuple(CcMode)))
def test_on_is_on_in_one_way_only(system: CcSystem, protected: list[int], wanted: CcMode) -> None:
    labels = {index: f"GPU {index}" for index in range(len(protected))}
    try:
        found = judge(system, memory(*protected), labels, wanted)
    except NvrcError as err:
        assert err.code in {"E_CC_UNKNOWN", "E_CC_DEVTOOLS", "E_CC_MISMATCH", "E_CC_DISAGREE"}
        return
    if found.mode is Mode.ON:
        assert (system.environment, system.feature, system.devtools) == (2, 1, 0)
        assert set(protected) == {80}
    if found.mode is Mode.OFF:
        assert (system.feature, system.devtools) == (0, 0)
        assert 80 not in protected


# On the stand-in library

@pytest.mark.parametrize(("text", "keys", "mode", "why"), [
    ("", "", Mode.OFF, "NVML: not supported on this machine"),
    (CONFIDENTIAL, "cc=on", Mode.ON, "NVML: environment production, feature on, developer tools off, multi-GPU none, CPU TDX"),
    ("fail nvmlSystemGetConfComputeState 13", "", Mode.OFF, "NVML: not supported on this machine"),
    (f"{CONFIDENTIAL}\nfail nvmlSystemGetConfComputeSettings 13\nfail nvmlSystemGetConfComputeCapabilities 3", "cc=on", Mode.ON,
     "NVML: environment production, feature on, developer tools off, multi-GPU none, CPU not told"),
])
def test_what_the_library_says(gpu_guest: MakeGuest, text: str, keys: str, mode: Mode, why: str) -> None:
    facts = gpu_guest(text=text, keys=keys).boot(2)
    assert facts.confidential == Confidential(mode, why)
    assert cc_check.tell(facts) == mode.value


def refused(guest: GpuGuest) -> NvrcError:
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    return caught.value


@pytest.mark.parametrize(("cmdline", "text", "keys", "code"), [
    ("nvrc.cc=on", "", "", "E_CC_MISMATCH"),
    ("nvrc.cc=off", CONFIDENTIAL, "cc=on", "E_CC_MISMATCH"),
    ("nvrc.cc=ppcie", CONFIDENTIAL, "cc=on", "E_CC_MISMATCH"),
    ("nvrc.cc=on", "cc environment=sim feature=on devtools=on", "cc=on", "E_CC_DEVTOOLS"),
    ("", "cc environment=prod feature=7", "cc=on", "E_CC_UNKNOWN"),
    ("", "cc environment=prod feature=on multigpu=9", "cc=on", "E_CC_UNKNOWN"),
    ("", CONFIDENTIAL, "", "E_CC_DISAGREE"),
    ("", f"{CONFIDENTIAL}\nfail nvmlDeviceGetConfComputeMemSizeInfo gpu=1 3", "cc=on", "E_CC_UNKNOWN"),
    ("", f"{CONFIDENTIAL}\nfail nvmlSystemGetConfComputeState 4", "cc=on", "E_CC_UNKNOWN"),
    ("", f"{CONFIDENTIAL}\nfail nvmlSystemGetConfComputeSettings 4", "cc=on", "E_CC_UNKNOWN"),
])
def test_modes_that_end_the_boot(gpu_guest: MakeGuest, cmdline: str, text: str, keys: str, code: str) -> None:
    guest = gpu_guest(cmdline, text=text, keys=keys)
    assert refused(guest).code == code
    assert not (guest.root / "run/cdi/nvidia.yaml").exists()


def test_one_gpu_of_another_mode(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(gpus=1, on_bus=2, keys="cc=on", text=f"gpu 1 bus=0000:1b:00.0 cc=off\n{CONFIDENTIAL}")
    assert refused(guest).what == (
        "memory is protected on GPU 0 0000:1a:00.0 (GPU-00000000-0000-4000-8000-000000000000) and not on "
        "GPU 1 0000:1b:00.0 (GPU-00000000-0000-4000-8000-000000000001)")


# The ready state

@pytest.mark.parametrize(("settings", "mode", "wish"), [
    (Settings(), Mode.ON, Wish(None, "not requested")),
    (Settings(ready_state=ReadyState.NOT_READY), Mode.ON, Wish(False, "nvrc.smi.srs=0")),
    (Settings(ready_state=ReadyState.READY), Mode.ON, Wish(True, "nvrc.smi.srs=1; GPU count, attach and mode on verified")),
    (Settings(ready_state=ReadyState.READY), Mode.PPCIE, Wish(True, "nvrc.smi.srs=1; GPU count, attach and mode ppcie verified")),
    (Settings(ready=ReadyRule.NEVER, ready_state=ReadyState.READY), Mode.ON, Wish(None, "nvrc.ready=never")),
    (Settings(ready=ReadyRule.NEVER, ready_state=ReadyState.NOT_READY), Mode.ON, Wish(None, "nvrc.ready=never")),
    (Settings(ready=ReadyRule.VERIFIED), Mode.ON, Wish(True, "nvrc.ready=verified; GPU count, attach and mode on verified")),
    (Settings(ready=ReadyRule.ALWAYS), Mode.DEVTOOLS, Wish(True, "nvrc.ready=always, unchecked, mode devtools")),
    (Settings(ready=ReadyRule.VERIFIED), Mode.DEVTOOLS, Wish(
        None, "nvrc.ready=verified, but mode devtools is not to be trusted",
        ("ready state left: nvrc.ready=verified, but mode devtools is not to be trusted",))),
])
def test_who_decides(settings: Settings, mode: Mode, wish: Wish) -> None:
    assert decide(settings, Confidential(mode, "")) == wish


@pytest.mark.parametrize(("cmdline", "before", "outcome", "accepts", "why"), [
    ("nvrc.smi.srs=1", "off", Outcome.SET, True, "nvrc.smi.srs=1; GPU count, attach and mode on verified; at 100.0 s; read back: ready"),
    ("nvrc.smi.srs=1", "on", Outcome.LEFT, True, "nvrc.smi.srs=1; GPU count, attach and mode on verified; the GPUs are ready"),
    ("nvrc.smi.srs=0", "off", Outcome.LEFT, False, "nvrc.smi.srs=0; the GPUs are not ready"),
    ("nvrc.smi.srs=0", "on", Outcome.SET, False, "nvrc.smi.srs=0; at 100.0 s; read back: not ready"),
    ("", "off", Outcome.LEFT, False, "not requested; the GPUs are not ready"),
    ("nvrc.ready=never nvrc.smi.srs=1", "on", Outcome.LEFT, True, "nvrc.ready=never; the GPUs are ready"),
])
def test_ready_states(  # noqa: PLR0917 - a row of the table
    gpu_guest: MakeGuest, cmdline: str, before: str, outcome: Outcome, accepts: bool, why: str,
) -> None:
    guest = gpu_guest(cmdline, text=f"{CONFIDENTIAL} ready={before}", keys="cc=on")
    facts = guest.boot()
    assert facts.ready == (outcome, accepts, why)
    assert ready_state.tell(facts) == f"{outcome.value}: {why}"
    assert guest.mock.names().count("nvmlSystemSetConfComputeGpusReadyState") == (outcome is Outcome.SET)


LATER = PciFunction(bdf="0000:7f:00.0", vendor=0x10DE, device=0x2330, pci_class=0x030200)


def test_no_state_covers_a_gpu_that_was_plugged_in_after_the_scan(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.srs=1", text=CONFIDENTIAL, keys="cc=on")
    guest.boot(3)
    guest.plug_in(LATER)
    with pytest.raises(NvrcError) as caught:
        ready_state.run(guest.system, guest.facts)
    assert caught.value.code == "E_GPU_IDENTITY"
    assert f"{LATER.bdf}: not attached by nvidia-persistenced; {LATER.bdf}: not listed by NVIDIA's library" in caught.value.what
    assert "nvmlSystemSetConfComputeGpusReadyState" not in guest.mock.names()


def test_where_fewer_gpus_suffice_one_that_came_later_leaves_the_state(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.srs=1 nvrc.gpus=min:2", text=CONFIDENTIAL, keys="cc=on")
    guest.boot(3)
    guest.plug_in(LATER)
    ready = ready_state.run(guest.system, guest.facts).ready
    assert ready is not None and ready.outcome is Outcome.LEFT
    assert LATER.bdf in ready.why


def test_no_state_covers_a_gpu_that_was_taken_away_after_the_scan(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.srs=1", text=CONFIDENTIAL, keys="cc=on")
    guest.boot(3)
    shutil.rmtree(guest.system.real_path(f"/sys/bus/pci/devices/{bus_id(1)}"))
    with pytest.raises(NvrcError, match=f"{bus_id(1)}.*: not on the bus") as caught:
        ready_state.run(guest.system, guest.facts)
    assert caught.value.code == "E_GPU_IDENTITY"


def test_the_step_waits_longer_than_its_request(gpu_guest: MakeGuest) -> None:
    """A request that ends by its own deadline says which one it was."""
    facts = gpu_guest().boot()
    assert ready_state.deadline_s(facts) == facts.nvml_patience_s + 5.0


def test_a_boot_without_gpus_has_no_state_to_tell() -> None:
    assert ready_state.tell(Facts()) == ""


@pytest.mark.parametrize("cmdline", ["nvrc.smi.srs=1", "nvrc.smi.srs=0", "nvrc.ready=always", "nvrc.ready=verified"])
def test_without_confidential_mode_a_request_is_a_note_and_an_error_under_strict(gpu_guest: MakeGuest, cmdline: str) -> None:
    facts = gpu_guest(cmdline).boot()
    assert facts.ready == (Outcome.NOT_APPLICABLE, True, "asked for, but no confidential mode, no ready state")
    assert facts.warnings == ()
    caught = refused(gpu_guest(f"{cmdline} nvrc.strict=on"))
    assert (caught.code, caught.what) == (
        "E_READY_STATE", "a ready state is asked for under nvrc.strict, but no confidential mode, no ready state")


@pytest.mark.parametrize("cmdline", ["nvrc.ready=never nvrc.strict=on", "nvrc.strict=on", "nvrc.ready=never nvrc.smi.srs=1"])
def test_nothing_asked_is_nothing_missed(gpu_guest: MakeGuest, cmdline: str) -> None:
    facts = gpu_guest(cmdline).boot()
    assert facts.ready == (Outcome.NOT_APPLICABLE, True, "no confidential mode, no ready state")


def test_developer_tools_are_told_and_never_made_ready_by_what_was_verified(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.srs=1", text="cc environment=sim feature=on devtools=on", keys="cc=on")
    facts = guest.boot()
    assert facts.ready is not None and facts.ready.outcome is Outcome.LEFT
    assert told(facts.warnings) == (
        "the GPUs are in developer tools mode: nothing in them is confidential",
        "ready state left: nvrc.smi.srs=1, but mode devtools is not to be trusted")


@pytest.mark.parametrize(("text", "keys", "has_nics", "mode"), [
    (CONFIDENTIAL, "cc=on", True, "on"), ("cc environment=sim feature=on devtools=on", "cc=on", True, "devtools"),
    (CONFIDENTIAL, "cc=on", False, ""), ("", "", True, "")], ids=["on", "developer-tools", "no-nic", "off"])
def test_that_nics_do_not_reach_gpus_is_told_in_words(gpu_guest: MakeGuest, text: str, keys: str, has_nics: bool, mode: str) -> None:
    guest = gpu_guest(text=text, keys=keys)
    nic = PciFunction(bdf="0000:70:00.0", vendor=0x15B3, device=0x101E, pci_class=0x020000)
    facts = guest.boot(1)
    assert facts.topology is not None
    topology = replace(facts.topology, others=(nic,) if has_nics else ())
    found = cc_check.run(guest.system, replace(facts, topology=topology))
    words = [what for what in told(found.warnings) if what.startswith("GPUDirect RDMA is unavailable")]
    assert [f"confidential mode ({mode})" in what and "(TDISP)" in what for what in words] == ([True] if mode else [])


def test_a_state_that_does_not_read_back(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.srs=1", keys="cc=on", text=f"{CONFIDENTIAL}\nfail nvmlSystemSetConfComputeGpusReadyState 0")
    caught = refused(guest)
    assert (caught.code, caught.what) == (
        "E_READY_STATE", "set to 1, but nvmlSystemGetConfComputeGpusReadyState says 0")


# Answers that are none

class Liar(Worker):
    """Answers what it was given to say."""

    said: object = None

    def ask(self, name: str, deadline_s: float, **given: object) -> object:
        return self.said


@pytest.mark.parametrize("answer", [None, [], {"system": None}, {"system": [1, 2], "gpus": []}, {"system": None, "gpus": 3},
                                    {"system": list(ON), "gpus": [[0, 80]]}, {"system": list(ON), "gpus": [[0, "80"]]},
                                    {"system": None, "gpus": [[0, 80]]}, {"system": list(ON), "gpus": [[0, 80]] * 2}])
def test_a_mode_that_is_no_answer(gpu_guest: MakeGuest, answer: object) -> None:
    guest = gpu_guest()
    facts = guest.boot(1)
    liar = Liar(guest.system, -1, -1, -1)
    liar.said = answer
    with pytest.raises(NvrcError) as caught:
        cc_check.run(guest.system, replace(facts, worker=liar))
    assert caught.value.code in {"E_NVML_CRASH", "E_CC_UNKNOWN"}


@pytest.mark.parametrize("answer", [None, True, [True], [1, 0], ["True", "False"]])
def test_a_state_that_is_no_answer(gpu_guest: MakeGuest, answer: object) -> None:
    guest = gpu_guest("nvrc.smi.srs=1", text=CONFIDENTIAL, keys="cc=on")
    liar = Liar(guest.system, -1, -1, -1)
    liar.said = answer
    facts = replace(guest.boot(3), worker=liar)
    with pytest.raises(NvrcError, match="not a ready state") as caught:
        ready_state.run(guest.system, facts)
    assert caught.value.code == "E_NVML_CRASH"
