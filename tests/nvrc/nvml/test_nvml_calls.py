# SPDX-License-Identifier: Apache-2.0
"""Every call that a boot makes of NVIDIA's library fails in turn, crashes, hangs: each ends in its own code."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest, bus_id
from fakes.nvml_calls import CALLS, EVERYTHING, Call
from nvrc.vocabulary.errors import NvrcError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

MACHINE = f"{CONFIDENTIAL}\nmig gpu=1 gi=9 ci=0 profile=1g.10gb"
UNPLACED = ("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3")
NAMES = [call.name for call in CALLS]


@pytest.fixture
def everything(gpu_guest: MakeGuest) -> Callable[[str], GpuGuest]:
    return lambda fault: gpu_guest(EVERYTHING, keys="cc=on mig=on", text=f"{MACHINE}\n{fault}")


def test_the_table_names_every_call_of_a_boot(everything: Callable[[str], GpuGuest]) -> None:
    guest = everything("")
    facts = guest.boot()
    assert sorted(set(guest.mock.names())) == sorted(NAMES)
    assert facts.warnings == ()


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_failing_call_ends_in_its_code(everything: Callable[[str], GpuGuest], call: Call) -> None:
    guest = everything(f"fail {call.name} {'' if call.gpu is None else f'gpu={call.gpu} '}999")
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    assert caught.value.code == call.code
    assert call.words in caught.value.what
    assert call.gpu is None or f"GPU {call.gpu}" in caught.value.what
    # Before its bus id is known a GPU has a number only.
    assert call.gpu is None or bus_id(call.gpu) in caught.value.what or call.name in UNPLACED
    assert "NVML_ERROR_UNKNOWN (999)" in caught.value.what
    assert call.name.partition("_")[0].removesuffix("WithFlags").removesuffix("V") in caught.value.what
    assert guest.facts.ready is None


@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlSystemGetDriverVersion"])
def test_a_library_of_another_release_is_told_as_such_whichever_call_finds_out(
        everything: Callable[[str], GpuGuest], call: str) -> None:
    with pytest.raises(NvrcError) as caught:
        everything(f"fail {call} 18").boot()
    assert caught.value.code == "E_DRIVER_VERSION"
    assert "NVML_ERROR_LIB_RM_VERSION_MISMATCH (18)" in caught.value.what
    assert "install one version" in caught.value.hint


@pytest.mark.parametrize("call", NAMES)
def test_a_crash_in_any_call_is_a_failed_step(everything: Callable[[str], GpuGuest], call: str) -> None:
    guest = everything(f"crash {call}")
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    assert caught.value.code == "E_NVML_CRASH"


REQUESTS = (
    ("nvmlDeviceGetCount_v2", "gpus"), ("nvmlDeviceSetPowerManagementLimit", "settings"),
    ("nvmlDeviceCreateGpuInstanceWithPlacement", "mig"), ("nvmlSystemGetConfComputeState", "cc"),
    ("nvmlSystemGetDriverVersion", "cdi"), ("nvmlSystemGetConfComputeGpusReadyState", "ready"),
)
GIVEN: dict[str, dict[str, object]] = {
    "settings": {"gpus": [0], "power_limit_w": 500}, "mig": {"gpus": [[0, ["1g.10gb"]]]}, "cc": {"gpus": [0]},
    "cdi": {"keep_going": False}, "ready": {"ready": True},
}


@pytest.mark.parametrize(("call", "request_name"), REQUESTS)
def test_a_hang_ends_at_the_deadline(everything: Callable[[str], GpuGuest], call: str, request_name: str) -> None:
    guest = everything("")
    worker = guest.start()
    with pytest.raises(NvrcError, match="'warm up'"):
        worker.ask("warm up", 10)
    guest.describe(f"{MACHINE}\nhang {call}")
    with pytest.raises(NvrcError, match=f"no answer to '{request_name}'") as caught:
        worker.ask(request_name, 0.1, **GIVEN.get(request_name, {}))
    assert caught.value.code == "E_NVML_HANG"
    assert os.WTERMSIG(os.waitpid(worker.pid, 0)[1]) == 9


@pytest.mark.parametrize(("cmdline", "fault", "serials"), [
    ("nvrc.metrics=9400", "", ["1650000000000", "1650000000001"]), ("nvrc.metrics=9400", "fail nvmlDeviceGetSerial gpu=1 3", ["1650000000000", ""]),
    ("", "hang nvmlDeviceGetSerial", ["", ""])], ids=["for the metrics", "one has none", "no metrics, no question"])
def test_serial_numbers_are_asked_for_the_metrics_alone(gpu_guest: MakeGuest, cmdline: str, fault: str, serials: list[str]) -> None:
    assert [gpu.serial for gpu in gpu_guest(cmdline, text=fault).boot().gpus or ()] == serials
