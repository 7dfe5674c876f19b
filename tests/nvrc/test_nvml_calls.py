# SPDX-License-Identifier: Apache-2.0
"""Every call that a boot makes of NVIDIA's library fails in turn, crashes, hangs: each ends in its own code."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest
from nvrc.errors import NvrcError

pytestmark = [pytest.mark.worker, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

# A boot that asks for everything: GPU 1 is cut anew, GPU 0 stays whole.
EVERYTHING = "nvrc.smi.lgc=1500 nvrc.smi.lmc=2619 nvrc.smi.pl=500 nvrc.mig=1:3g.40gb*2;0:off nvrc.smi.srs=1 nvrc.cc=on"
MACHINE = f"{CONFIDENTIAL}\nmig gpu=1 gi=9 ci=0 profile=1g.10gb"

# Call, the code its failure ends in, and words of the message.
CALLS = (
    ("nvmlInitWithFlags",                             "E_NVML",         "nvmlInit returned"),
    ("nvmlDeviceGetCount_v2",                         "E_NVML",         ""),
    ("nvmlDeviceGetHandleByIndex_v2",                 "E_GPU_NVML",     "GPU 1: "),
    ("nvmlDeviceGetName",                             "E_GPU_NVML",     "GPU 1: "),
    ("nvmlDeviceGetPciInfo_v3",                       "E_GPU_NVML",     "GPU 1: "),
    ("nvmlDeviceGetUUID",                             "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetMinorNumber",                      "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetMigMode",                          "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetMaxMigDeviceCount",                "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetMigDeviceHandleByIndex",           "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetGpuInstanceId",                    "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetComputeInstanceId",                "E_GPU_NVML",     "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceSetMemoryLockedClocks",               "E_GPU_SETTING",  "GPU 1 0000:1b:00.0: nvrc.smi.lmc=2619: "),
    ("nvmlDeviceSetGpuLockedClocks",                  "E_GPU_SETTING",  "GPU 1 0000:1b:00.0: nvrc.smi.lgc=1500: "),
    ("nvmlDeviceGetClockInfo",                        "E_GPU_SETTING",  "GPU 1 0000:1b:00.0: nvrc.smi.lgc=1500: "),
    ("nvmlDeviceGetPowerManagementLimitConstraints",  "E_GPU_SETTING",  "GPU 1 0000:1b:00.0: nvrc.smi.pl=500: "),
    ("nvmlDeviceSetPowerManagementLimit",             "E_GPU_SETTING",  "GPU 1 0000:1b:00.0: nvrc.smi.pl=500: "),
    ("nvmlDeviceGetPowerManagementLimit",             "E_GPU_SETTING",  "GPU 1 0000:1b:00.0: nvrc.smi.pl=500: "),
    ("nvmlDeviceSetMigMode",                          "E_MIG",          "GPU 0 0000:1a:00.0: "),
    ("nvmlDeviceGetGpuInstanceProfileInfoV",          "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetGpuInstances",                     "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlGpuInstanceGetComputeInstanceProfileInfoV", "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlGpuInstanceGetComputeInstances",            "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlComputeInstanceDestroy",                    "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlGpuInstanceDestroy",                        "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceGetGpuInstancePossiblePlacements_v2", "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlDeviceCreateGpuInstanceWithPlacement",      "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlGpuInstanceCreateComputeInstance",          "E_MIG",          "GPU 1 0000:1b:00.0: "),
    ("nvmlSystemGetConfComputeState",                 "E_CC_UNKNOWN",   ""),
    ("nvmlSystemGetConfComputeCapabilities",          "E_CC_UNKNOWN",   ""),
    ("nvmlSystemGetConfComputeSettings",              "E_CC_UNKNOWN",   ""),
    ("nvmlDeviceGetConfComputeMemSizeInfo",           "E_CC_UNKNOWN",   ""),
    ("nvmlSystemGetDriverVersion",                    "E_CDI_NVML",     ""),
    ("nvmlSystemGetConfComputeGpusReadyState",        "E_READY_STATE",  ""),
    ("nvmlSystemSetConfComputeGpusReadyState",        "E_READY_STATE",  ""),
)
NAMES = [call for call, _code, _words in CALLS]


@pytest.fixture
def everything(gpu_guest: MakeGuest) -> Callable[[str], GpuGuest]:
    return lambda fault: gpu_guest(EVERYTHING, keys="cc=on mig=on", text=f"{MACHINE}\n{fault}")


def test_the_table_names_every_call_of_a_boot(everything: Callable[[str], GpuGuest]) -> None:
    guest = everything("")
    facts = guest.boot()
    assert sorted(set(guest.mock.names())) == sorted(NAMES)
    assert facts.warnings == ()


@pytest.mark.parametrize(("call", "code", "words"), CALLS)
def test_a_failing_call_ends_in_its_code(everything: Callable[[str], GpuGuest], call: str, code: str, words: str) -> None:
    about = f" gpu={words[4]}" if words.startswith("GPU ") else ""
    guest = everything(f"fail {call}{about} 999")
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    assert caught.value.code == code
    assert words in caught.value.what
    assert "NVML_ERROR_UNKNOWN (999)" in caught.value.what
    assert call.partition("_")[0].removesuffix("WithFlags").removesuffix("V") in caught.value.what
    assert guest.facts.ready is None


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
    worker.ask("gpus", 10)
    guest.describe(f"{MACHINE}\nhang {call}")
    with pytest.raises(NvrcError, match=f"no answer to '{request_name}'") as caught:
        worker.ask(request_name, 0.1, **GIVEN.get(request_name, {}))
    assert caught.value.code == "E_NVML_HANG"
    assert os.WTERMSIG(os.waitpid(worker.pid, 0)[1]) == 9
