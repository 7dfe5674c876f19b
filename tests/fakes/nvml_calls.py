# SPDX-License-Identifier: Apache-2.0
"""Every call that a boot makes of NVIDIA's library, and what its failure ends in. The worker's tests fail them one after
the other on the stand-in library, those of whole machines in a guest.
"""

from __future__ import annotations

from typing import NamedTuple

# A boot that asks for everything: GPU 1 is cut anew, GPU 0 becomes whole.
EVERYTHING = "nvrc.smi.lgc=1500 nvrc.smi.lmc=2619 nvrc.smi.pl=500 nvrc.mig=1:3g.40gb*2;0:off nvrc.smi.srs=1 nvrc.cc=on"


class Call(NamedTuple):
    """`gpu`: which one of two it fails for; None where it is about the machine. `words`: of the message."""

    name: str
    code: str
    gpu: int | None
    words: str

    @property
    def step(self) -> str:
        return STEPS[self.code]


STEPS = {"E_NVML": "gpu-settings", "E_GPU_NVML": "gpu-settings", "E_GPU_SETTING": "gpu-settings", "E_MIG": "gpu-settings",
         "E_CC_UNKNOWN": "cc-check", "E_CDI_NVML": "cdi", "E_READY_STATE": "ready-state"}
CALLS = (
    Call("nvmlInitWithFlags",                              "E_NVML",         None, "nvmlInit returned"),
    Call("nvmlDeviceGetCount_v2",                          "E_NVML",         None, ""),
    Call("nvmlDeviceGetHandleByIndex_v2",                  "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetName",                              "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetPciInfo_v3",                        "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetUUID",                              "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetMinorNumber",                       "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetMigMode",                           "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetMaxMigDeviceCount",                 "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetMigDeviceHandleByIndex",            "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetGpuInstanceId",                     "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceGetComputeInstanceId",                 "E_GPU_NVML",     1,    ""),
    Call("nvmlDeviceSetMemoryLockedClocks",                "E_GPU_SETTING",  1,    "nvrc.smi.lmc=2619: "),
    Call("nvmlDeviceSetGpuLockedClocks",                   "E_GPU_SETTING",  1,    "nvrc.smi.lgc=1500: "),
    Call("nvmlDeviceGetClockInfo",                         "E_GPU_SETTING",  1,    "nvrc.smi.lgc=1500: "),
    Call("nvmlDeviceGetPowerManagementLimitConstraints",   "E_GPU_SETTING",  1,    "nvrc.smi.pl=500: "),
    Call("nvmlDeviceSetPowerManagementLimit",              "E_GPU_SETTING",  1,    "nvrc.smi.pl=500: "),
    Call("nvmlDeviceGetPowerManagementLimit",              "E_GPU_SETTING",  1,    "nvrc.smi.pl=500: "),
    Call("nvmlDeviceSetMigMode",                           "E_MIG",          0,    ""),
    Call("nvmlDeviceGetGpuInstanceProfileInfoV",           "E_MIG",          1,    ""),
    Call("nvmlDeviceGetGpuInstances",                      "E_MIG",          1,    ""),
    Call("nvmlGpuInstanceGetComputeInstanceProfileInfoV",  "E_MIG",          1,    ""),
    Call("nvmlGpuInstanceGetComputeInstances",             "E_MIG",          1,    ""),
    Call("nvmlComputeInstanceDestroy",                     "E_MIG",          1,    ""),
    Call("nvmlGpuInstanceDestroy",                         "E_MIG",          1,    ""),
    Call("nvmlDeviceGetGpuInstancePossiblePlacements_v2",  "E_MIG",          1,    ""),
    Call("nvmlDeviceCreateGpuInstanceWithPlacement",       "E_MIG",          1,    ""),
    Call("nvmlGpuInstanceCreateComputeInstance",           "E_MIG",          1,    ""),
    Call("nvmlSystemGetConfComputeState",                  "E_CC_UNKNOWN",   None, ""),
    Call("nvmlSystemGetConfComputeCapabilities",           "E_CC_UNKNOWN",   None, ""),
    Call("nvmlSystemGetConfComputeSettings",               "E_CC_UNKNOWN",   None, ""),
    Call("nvmlDeviceGetConfComputeMemSizeInfo",            "E_CC_UNKNOWN",   None, ""),
    Call("nvmlSystemGetDriverVersion",                     "E_CDI_NVML",     None, ""),
    Call("nvmlSystemGetConfComputeGpusReadyState",         "E_READY_STATE",  None, ""),
    Call("nvmlSystemSetConfComputeGpusReadyState",         "E_READY_STATE",  None, ""),
)
