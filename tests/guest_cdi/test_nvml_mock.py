# SPDX-License-Identifier: Apache-2.0
"""The stand-in libnvidia-ml.so.1, asked through an unmodified nvidia-ml-py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, sizeof
from pathlib import Path

import pynvml as ml
import pytest

from fakes.nvml import STANDIN, MockNvml, build_module
from guest_cdi.nvml import load

Describe = Callable[[str], MockNvml]

SIZES = {
    "struct pci_info": ml.nvmlPciInfo_t,
    "struct memory_info": ml.c_nvmlMemory_t,
    "struct memory_info_v2": ml.c_nvmlMemory_v2_t,
    "struct utilization": ml.c_nvmlUtilization_t,
    "struct cc_state": ml.c_nvmlConfComputeSystemState_t,
    "struct cc_settings": ml.c_nvmlSystemConfComputeSettings_v1_t,
    "struct cc_capabilities": ml.c_nvmlConfComputeSystemCaps_t,
    "struct cc_memory": ml.c_nvmlConfComputeMemSizeInfo_t,
    "struct cc_certificate": ml.c_nvmlConfComputeGpuCertificate_t,
    "struct fabric_info": ml.c_nvmlGpuFabricInfo_t,
    "struct fabric_info_v2": ml.c_nvmlGpuFabricInfo_v2_t,
    "struct fabric_info_v3": ml.c_nvmlGpuFabricInfo_v3_t,
    "struct gi_profile_info": ml.c_nvmlGpuInstanceProfileInfo_t,
    "struct gi_profile_info_v2": ml.c_nvmlGpuInstanceProfileInfo_v2_t,
    "struct gi_info": ml.c_nvmlGpuInstanceInfo_t,
    "struct ci_profile_info": ml.c_nvmlComputeInstanceProfileInfo_t,
    "struct ci_profile_info_v2": ml.c_nvmlComputeInstanceProfileInfo_v2_t,
    "struct ci_info": ml.c_nvmlComputeInstanceInfo_t,
    "struct device_attributes": ml.c_nvmlDeviceAttributes,
}


@contextmanager
def opened(mock: MockNvml) -> Iterator[None]:
    load(mock.library)
    ml.nvmlInit()
    try:
        yield
    finally:
        ml.nvmlShutdown()


def run(mock: MockNvml, code: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: for crashes and for state that outlives one."""
    preamble = f"import pynvml as ml; from guest_cdi.nvml import load; load({mock.library!r});"
    return subprocess.run([sys.executable, "-c", f"{preamble}{code}"], capture_output=True, text=True, timeout=30,
                          check=False, cwd=STANDIN.parents[2])


def test_structures_have_the_sizes_of_nvidia_ml_py(tmp_path: Path, nvml_standin: Path) -> None:
    source = tmp_path / "sizes.c"
    prints = "".join(f'printf("%zu\\n", sizeof({name}));' for name in SIZES)
    source.write_text(f'#include <stdio.h>\n#include "abi.h"\nint main(void) {{ {prints} return 0; }}\n')
    subprocess.run(["gcc", "-I", str(STANDIN), "-o", str(tmp_path / "sizes"), str(source)], check=True, timeout=60)
    told = subprocess.check_output([str(tmp_path / "sizes")], timeout=10).split()
    assert dict(zip(SIZES, map(int, told), strict=True)) == {name: sizeof(kind) for name, kind in SIZES.items()}


def test_soname_is_the_one_a_loader_asks_for(nvml_standin: Path) -> None:
    assert b"libnvidia-ml.so.1\0" in nvml_standin.read_bytes()


def test_an_unchanged_library_is_not_built_again(nvml_standin: Path) -> None:
    before = nvml_standin.resolve().stat().st_mtime_ns
    assert Path(build_module().build(str(nvml_standin.parent))).resolve().stat().st_mtime_ns == before


@pytest.mark.long
def test_compiler_errors_are_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="gcc -DNVML_STANDIN_ABI_H -std=gnu11"):
        build_module().build(str(tmp_path), ("gcc", "-DNVML_STANDIN_ABI_H"))


def test_identity(nvml_mock: Describe) -> None:
    mock = nvml_mock('cuda 12080\nnvml 12.580\ngpu 0\ngpu 1 name="NVIDIA H200" uuid=GPU-x minor=7 bus=0001:3b:00.0 '
                     "pci=10de:2335 subsystem=10de:18be memory=150754820096 serial=17 part=900 vbios=96.1")
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(1)
        pci = ml.nvmlDeviceGetPciInfo(gpu)
        assert ml.nvmlSystemGetDriverVersion() == "580.95.05"
        assert ml.nvmlSystemGetNVMLVersion() == "12.580"
        assert ml.nvmlSystemGetCudaDriverVersion() == 12080
        assert ml.nvmlDeviceGetCount() == 2
        assert ml.nvmlDeviceGetName(gpu) == "NVIDIA H200"
        assert ml.nvmlDeviceGetUUID(gpu) == "GPU-x"
        assert ml.nvmlDeviceGetSerial(gpu) == "17"
        assert ml.nvmlDeviceGetBoardPartNumber(gpu) == "900"
        assert ml.nvmlDeviceGetVbiosVersion(gpu) == "96.1"
        assert ml.nvmlDeviceGetIndex(gpu) == 1
        assert ml.nvmlDeviceGetMinorNumber(gpu) == 7
        assert ml.nvmlDeviceGetCudaComputeCapability(gpu) == (9, 0)
        assert ml.nvmlDeviceGetMemoryInfo(gpu).total == 150754820096
        assert ml.nvmlDeviceGetMemoryInfo(gpu, version=ml.nvmlMemory_v2).total == 150754820096
        assert (pci.busId, pci.busIdLegacy) == ("00000001:3B:00.0", "0001:3B:00.0")
        assert (pci.pciDeviceId, pci.pciSubSystemId) == (0x233510DE, 0x18BE10DE)
        for same in (ml.nvmlDeviceGetHandleByUUID("GPU-x"), ml.nvmlDeviceGetHandleByPciBusId("00000001:3B:00.0")):
            assert ml.nvmlDeviceGetIndex(same) == 1
        with pytest.raises(ml.NVMLError_NotFound):
            ml.nvmlDeviceGetHandleByUUID("GPU-y")


def test_what_is_measured_is_what_the_description_says_now(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0 nvlinks=18")
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert (ml.nvmlDeviceGetPowerUsage(gpu), ml.nvmlDeviceGetTemperature(gpu, ml.NVML_TEMPERATURE_GPU)) == (72000, 31)
        mock.describe("gpu 0 nvlinks=18\nset gpu=0 draw-mw=412345 celsius=77 busy=93,41 ecc=3,1 used=1024 nvlinks-down=2")
        assert (ml.nvmlDeviceGetPowerUsage(gpu), ml.nvmlDeviceGetTemperature(gpu, ml.NVML_TEMPERATURE_GPU)) == (412345, 77)
        busy, memory = ml.nvmlDeviceGetUtilizationRates(gpu), ml.nvmlDeviceGetMemoryInfo(gpu)
        assert (busy.gpu, busy.memory, memory.used, memory.free) == (93, 41, 1024, (80 << 30) - 1024)
        assert [ml.nvmlDeviceGetTotalEccErrors(gpu, kind, ml.NVML_VOLATILE_ECC) for kind in (0, 1)] == [3, 1]
        assert [ml.nvmlDeviceGetNvLinkState(gpu, link) for link in (0, 15, 16, 17)] == [1, 1, 0, 0]
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlDeviceGetTotalEccErrors(gpu, 2, ml.NVML_VOLATILE_ECC)


def test_nothing_answers_before_init(nvml_mock: Describe) -> None:
    load(nvml_mock("gpu 0").library)
    with pytest.raises(ml.NVMLError_Uninitialized):
        ml.nvmlDeviceGetCount()
    with pytest.raises(ml.NVMLError_Uninitialized):
        ml.nvmlShutdown()


def test_log_has_every_call_in_order(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0")
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        ml.nvmlDeviceSetGpuLockedClocks(gpu, 345, 1980)
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlDeviceGetHandleByIndex(1)
    calls = mock.calls()
    assert [(call.name, call.arguments, call.outcome) for call in calls] == [
        ("nvmlInitWithFlags", "flags=0", "0"),
        ("nvmlDeviceGetHandleByIndex_v2", "gpu=0", "0"),
        ("nvmlDeviceSetGpuLockedClocks", "gpu=0 min=345 max=1980", "0"),
        ("nvmlDeviceGetHandleByIndex_v2", "gpu=1", "2"),
        ("nvmlShutdown", "", "0"),
    ]
    assert {call.pid for call in calls} == {os.getpid()}
    assert [call.seconds for call in calls] == sorted(call.seconds for call in calls)


def cc_settings() -> tuple[int, ...]:
    settings = ml.c_nvmlSystemConfComputeSettings_v1_t()
    assert ml.nvmlSystemGetConfComputeSettings(byref(settings)) == 0
    return settings.environment, settings.ccFeature, settings.devToolsMode, settings.multiGpuMode


def test_confidential_computing(nvml_mock: Describe) -> None:
    mode = "cc environment=prod feature=on devtools=on multigpu=ppcie cpu=tdx"
    with opened(nvml_mock(f"{mode}\ngpu 0 cc=on\ngpu 1 cc=off")):
        state, capabilities = ml.nvmlSystemGetConfComputeState(), ml.nvmlSystemGetConfComputeCapabilities()
        assert (state.environment, state.ccFeature, state.devToolsMode) == (2, 1, 1)
        assert (capabilities.cpuCaps, capabilities.gpusCaps) == (2, 1)
        assert cc_settings() == (2, 1, 1, 1)
        memory = [ml.nvmlDeviceGetConfComputeMemSizeInfo(ml.nvmlDeviceGetHandleByIndex(index)) for index in (0, 1)]
        assert [m.protectedMemSizeKib for m in memory] == [80 << 20, 0]
        usage = ml.nvmlDeviceGetConfComputeProtectedMemoryUsage(ml.nvmlDeviceGetHandleByIndex(0))
        assert usage.total == 80 << 30
        certificate = ml.nvmlDeviceGetConfComputeGpuCertificate(ml.nvmlDeviceGetHandleByIndex(0))
        chain = bytes(certificate.attestationCertChain)[:certificate.attestationCertChainSize]
        assert chain == b"-----BEGIN CERTIFICATE-----\nGPU-00000000-0000-4000-8000-000000000000\n-----END CERTIFICATE-----\n"


def test_a_mode_without_a_name_can_be_described(nvml_mock: Describe) -> None:
    with opened(nvml_mock("cc feature=7 gpus=incapable\ngpu 0")):
        assert ml.nvmlSystemGetConfComputeState().ccFeature == 7
        assert ml.nvmlSystemGetConfComputeCapabilities().gpusCaps == 0


def test_settings_of_another_version_are_refused(nvml_mock: Describe) -> None:
    settings = ml.c_nvmlSystemConfComputeSettings_v1_t()
    settings.version = 0x2000014
    with opened(nvml_mock("cc feature=on")):
        assert ml.nvmlSystemGetConfComputeSettings(byref(settings)) == ml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH


@pytest.mark.parametrize("text", ["gpu 0", "cc feature=off\ngpu 0"], ids=["no support", "mode off"])
def test_ready_state_needs_confidential_mode(nvml_mock: Describe, text: str) -> None:
    with opened(nvml_mock(text)), pytest.raises(ml.NVMLError_NotSupported):
        ml.nvmlSystemSetConfComputeGpusReadyState(1)


@pytest.mark.long
def test_state_outlives_the_process(nvml_mock: Describe) -> None:
    mock = nvml_mock("cc feature=on gpus=incapable\ngpu 0")
    with opened(mock):
        assert ml.nvmlSystemGetConfComputeGpusReadyState() == 0
    code = "ml.nvmlInit(); h = ml.nvmlDeviceGetHandleByIndex(0); ml.nvmlSystemSetConfComputeGpusReadyState(1);" \
        "ml.nvmlDeviceSetGpuLockedClocks(h, 1410, 1410); ml.nvmlDeviceSetMemoryLockedClocks(h, 1593, 2000);" \
        "ml.nvmlDeviceSetPowerManagementLimit(h, 300000); ml.nvmlDeviceSetPersistenceMode(h, 1)"
    assert run(mock, code).stderr == ""
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlSystemGetConfComputeGpusReadyState() == 1
        assert ml.nvmlSystemGetConfComputeCapabilities().gpusCaps == 0
        assert ml.nvmlDeviceGetClockInfo(gpu, ml.NVML_CLOCK_SM) == 1410
        assert ml.nvmlDeviceGetClockInfo(gpu, ml.NVML_CLOCK_MEM) == 1593
        assert ml.nvmlDeviceGetPowerManagementLimit(gpu) == 300000
        assert ml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 300000
        assert ml.nvmlDeviceGetPersistenceMode(gpu) == 1


@pytest.mark.long
def test_a_change_by_another_process_is_seen(nvml_mock: Describe) -> None:
    mock = nvml_mock("cc feature=on\ngpu 0")
    with opened(mock):
        assert ml.nvmlSystemGetConfComputeGpusReadyState() == 0
        run(mock, "ml.nvmlInit(); ml.nvmlSystemSetConfComputeGpusReadyState(1)")
        assert ml.nvmlSystemGetConfComputeGpusReadyState() == 1
        ml.nvmlSystemSetConfComputeGpusReadyState(0)
        assert ml.nvmlSystemGetConfComputeGpusReadyState() == 0


def test_a_machine_can_break_while_it_is_watched(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0\ngpu 1")
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(1)
        assert ml.nvmlDeviceGetMinorNumber(gpu) == 1
        mock.describe("gpu 0\ngpu 1\nfail * gpu=1 15")
        with pytest.raises(ml.NVMLError_GpuIsLost):
            ml.nvmlDeviceGetMinorNumber(gpu)
        assert ml.nvmlDeviceGetMinorNumber(ml.nvmlDeviceGetHandleByIndex(0)) == 0
        assert ml.nvmlDeviceGetCount() == 2


def test_clocks(nvml_mock: Describe) -> None:
    with opened(nvml_mock("gpu 0 graphics-mhz=210,1410 idle-mhz=210 memory-mhz=1215,810")):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlDeviceGetSupportedMemoryClocks(gpu) == [1215, 810]
        graphics = ml.nvmlDeviceGetSupportedGraphicsClocks(gpu, 1215)
        assert (graphics[0], graphics[1], graphics[-1]) == (1410, 1395, 210)
        assert ml.nvmlDeviceGetMaxClockInfo(gpu, ml.NVML_CLOCK_MEM) == 1215
        assert ml.nvmlDeviceGetMaxClockInfo(gpu, ml.NVML_CLOCK_GRAPHICS) == 1410
        ml.nvmlDeviceSetGpuLockedClocks(gpu, 1000, 5000)
        assert ml.nvmlDeviceGetClockInfo(gpu, ml.NVML_CLOCK_GRAPHICS) == 990    # the step below 1000
        ml.nvmlDeviceResetGpuLockedClocks(gpu)
        assert ml.nvmlDeviceGetClockInfo(gpu, ml.NVML_CLOCK_GRAPHICS) == 210
        ml.nvmlDeviceSetMemoryLockedClocks(gpu, 0, 900)
        assert ml.nvmlDeviceGetClockInfo(gpu, ml.NVML_CLOCK_MEM) == 810
        ml.nvmlDeviceResetMemoryLockedClocks(gpu)
        assert ml.nvmlDeviceGetClockInfo(gpu, ml.NVML_CLOCK_MEM) == 1215
        for call, *clocks in ((ml.nvmlDeviceSetGpuLockedClocks, 1410, 1000), (ml.nvmlDeviceSetGpuLockedClocks, 10, 100),
                              (ml.nvmlDeviceSetMemoryLockedClocks, 3000, 3000), (ml.nvmlDeviceGetClockInfo, 4)):
            with pytest.raises(ml.NVMLError_InvalidArgument):
                call(gpu, *clocks)
        with pytest.raises(ml.NVMLError_NotFound):
            ml.nvmlDeviceGetSupportedGraphicsClocks(gpu, 999)


def test_power(nvml_mock: Describe) -> None:
    with opened(nvml_mock("gpu 0 power-mw=100000,400000 power-default-mw=350000")):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlDeviceGetPowerManagementLimitConstraints(gpu) == [100000, 400000]
        assert ml.nvmlDeviceGetPowerManagementDefaultLimit(gpu) == ml.nvmlDeviceGetPowerManagementLimit(gpu) == 350000
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlDeviceSetPowerManagementLimit(gpu, 400001)


def test_fabric(nvml_mock: Describe) -> None:
    text = "gpu 0 fabric=completed fabric-clique=3 fabric-health=2 fabric-summary=1 fabric-cluster=" + "0a" * 16
    with opened(nvml_mock(text)):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        for info in (ml.c_nvmlGpuFabricInfo_v2_t(), ml.c_nvmlGpuFabricInfo_v3_t()):
            ml.nvmlDeviceGetGpuFabricInfoV(gpu, byref(info))
            assert (info.state, info.cliqueId, info.healthMask, bytes(info.clusterUuid)) == (3, 3, 2, b"\n" * 16)
        assert info.healthSummary == 1
        old = ml.c_nvmlGpuFabricInfo_t()
        ml.nvmlDeviceGetGpuFabricInfo(gpu, byref(old))
        assert (old.state, old.cliqueId) == (3, 3)
        info.version = 1
        with pytest.raises(ml.NVMLError) as refused:
            ml.nvmlDeviceGetGpuFabricInfoV(gpu, byref(info))
        assert refused.value.value == ml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH


# Product by product: the profile names that nvidia-smi mig -lgip prints.
PROFILES = {
    "memory=42949672960": ["1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb", "1g.5gb+me", "1g.10gb"],
    "": ["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "1g.10gb+me", "1g.20gb"],
    "memory=150754820096 mig-gb=141": ["1g.18gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb", "1g.18gb+me", "1g.35gb"],
    "memory=193273528320 mig-gb=180": ["1g.23gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb", "1g.23gb+me", "1g.45gb"],
    "memory=103079215104 mig-family=rtx": ["1g.24gb", "2g.48gb", "4g.96gb", "1g.24gb+me", "1g.24gb+gfx", "2g.48gb+gfx",
                                           "4g.96gb+gfx"],
}


@pytest.mark.parametrize(("keys", "expected"), PROFILES.items(), ids=["A100", "H100", "H200", "B200", "RTX PRO 6000"])
def test_mig_profiles(nvml_mock: Describe, keys: str, expected: list[str]) -> None:
    with opened(nvml_mock(f"gpu 0 mig=on {keys}")):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        names = []
        for profile in range(ml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            try:
                info = ml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, profile)
            except ml.NVMLError_NotSupported:
                continue
            names.append(info.name.removeprefix("MIG "))
            assert ml.nvmlDeviceGetGpuInstanceProfileInfoById(gpu, info.id).name == info.name
            assert ml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, profile, version=1).id == info.id
        assert names == expected


def mig_devices(gpu: object) -> list[tuple[int, int, str]]:
    found = []
    for index in range(ml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            handle = ml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        except ml.NVMLError_NotFound:
            continue
        assert ml.nvmlDeviceIsMigDeviceHandle(handle).value == 1
        parent = ml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        assert ml.nvmlDeviceGetUUID(parent) == ml.nvmlDeviceGetUUID(gpu)
        uuid = ml.nvmlDeviceGetUUID(handle)
        assert ml.nvmlDeviceGetIndex(ml.nvmlDeviceGetHandleByUUID(uuid)) == index
        found.append((ml.nvmlDeviceGetGpuInstanceId(handle), ml.nvmlDeviceGetComputeInstanceId(handle), uuid))
    return found


def test_mig_layout_is_made_by_calls(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0 mig=off")
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlDeviceGetMigMode(gpu) == [0, 0]
        with pytest.raises(ml.NVMLError_NotSupported):
            ml.nvmlDeviceCreateGpuInstance(gpu, 9)
        assert ml.nvmlDeviceSetMigMode(gpu, 1) == 0
        first, second = ml.nvmlDeviceCreateGpuInstance(gpu, 9), ml.nvmlDeviceCreateGpuInstance(gpu, 9)
        assert ml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, 9) == 0
        with pytest.raises(ml.NVMLError) as full:
            ml.nvmlDeviceCreateGpuInstance(gpu, 9)
        assert full.value.value == ml.NVML_ERROR_INSUFFICIENT_RESOURCES
        info = ml.nvmlGpuInstanceGetInfo(second)
        assert (info.id, info.profileId, info.placement.start, info.placement.size) == (2, 9, 4, 4)
        assert ml.nvmlGpuInstanceGetComputeInstanceProfileInfo(first, 2, 0).name == "MIG 3g.40gb"
        assert ml.nvmlGpuInstanceGetComputeInstanceProfileInfo(first, 0, 0).name == "MIG 1c.3g.40gb"
        assert ml.nvmlGpuInstanceGetComputeInstanceProfileInfo(first, 0, 0, version=1).sliceCount == 1
        whole = ml.nvmlGpuInstanceCreateComputeInstance(first, 2)
        ml.nvmlGpuInstanceCreateComputeInstance(second, 0)
        assert ml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(second, 0) == 2
        assert ml.nvmlComputeInstanceGetInfo(whole).profileId == 2
        assert [(gi, ci) for gi, ci, _ in mig_devices(gpu)] == [(1, 0), (2, 0)]
        attributes = ml.nvmlDeviceGetAttributes(ml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 1))
        assert (attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount) == (3, 1)
        with pytest.raises(ml.NVMLError) as busy:
            ml.nvmlGpuInstanceDestroy(first)
        assert busy.value.value == ml.NVML_ERROR_IN_USE
        ml.nvmlComputeInstanceDestroy(whole)
        ml.nvmlGpuInstanceDestroy(first)
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlGpuInstanceGetInfo(first)
        left = mig_devices(gpu)
    with opened(mock):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlDeviceGetMigMode(gpu) == [1, 1]
        assert mig_devices(gpu) == left and len(left) == 1
        again = ml.nvmlDeviceGetGpuInstanceById(gpu, 2)
        assert ml.nvmlComputeInstanceGetInfo(ml.nvmlGpuInstanceGetComputeInstanceById(again, 0)).profileId == 0
        with pytest.raises(ml.NVMLError_NotFound):
            ml.nvmlDeviceGetGpuInstanceById(gpu, 1)


def test_instances_are_listed_and_placed(nvml_mock: Describe) -> None:
    with opened(nvml_mock("gpu 0 mig=on\ninstance gpu=0 profile=1g.10gb start=3\nmig gpu=0 gi=0 ci=0 profile=1g.10gb")):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        room = ml.c_uint(8)
        places = (ml.c_nvmlGpuInstancePlacement_t * 8)()
        ml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, 19, places, byref(room))
        assert [(place.start, place.size) for place in places[: room.value]] == [(start, 1) for start in range(7)]
        instances = (ml.c_nvmlGpuInstance_t * 7)()
        ml.nvmlDeviceGetGpuInstances(gpu, 19, instances, byref(room))
        assert [ml.nvmlGpuInstanceGetInfo(gi).id for gi in instances[: room.value]] == [10, 0]
        computes = (ml.c_nvmlComputeInstance_t * 7)()
        ml.nvmlGpuInstanceGetComputeInstances(instances[1], 0, computes, byref(room))
        assert room.value == 1
        where = ml.c_nvmlGpuInstancePlacement_t(start=4, size=4)
        placed = ml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, 9, byref(where))
        assert ml.nvmlGpuInstanceGetInfo(placed).placement.start == 4


def test_mig_mode_that_waits_for_a_reset(nvml_mock: Describe) -> None:
    with opened(nvml_mock("gpu 0 mig-needs-reset=on\ngpu 1 mig=unsupported")):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlDeviceSetMigMode(gpu, 1) == ml.NVML_ERROR_RESET_REQUIRED
        assert ml.nvmlDeviceGetMigMode(gpu) == [0, 1]
        with pytest.raises(ml.NVMLError_NotSupported):
            ml.nvmlDeviceGetMigMode(ml.nvmlDeviceGetHandleByIndex(1))


def test_nodes_are_held_open_and_a_dead_gpu_is_not_listed(nvml_mock: Describe, tmp_path: Path) -> None:
    nodes = tmp_path / "dev"
    nodes.mkdir()
    (nodes / "nvidiactl").touch()
    (nodes / "nvidia5").touch()
    mock = nvml_mock(f"nodes {nodes}\ngpu 0 minor=4\ngpu 1 minor=5")

    def held() -> list[str]:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit()
                 and os.path.exists(f"/proc/self/fd/{fd}")]
        return sorted(link.removeprefix(f"{nodes}/") for link in links if link.startswith(str(nodes)))

    with opened(mock):
        assert ml.nvmlDeviceGetCount() == 1
        assert ml.nvmlDeviceGetMinorNumber(ml.nvmlDeviceGetHandleByIndex(0)) == 5
        assert held() == ["nvidia5", "nvidiactl"]
    assert held() == []
    (nodes / "nvidiactl").unlink()
    with pytest.raises(ml.NVMLError_DriverNotLoaded):
        ml.nvmlInit()


@pytest.mark.parametrize("spelling", ["nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags"])
def test_a_fault_meets_every_spelling_of_a_function(nvml_mock: Describe, spelling: str) -> None:
    load(nvml_mock(f"gpu 0\nfail {spelling} 9").library)
    with pytest.raises(ml.NVMLError_DriverNotLoaded):
        ml.nvmlInit()


def test_a_fault_can_wait_for_its_turn(nvml_mock: Describe) -> None:
    with opened(nvml_mock("gpu 0\nfail nvmlDeviceGetMinorNumber call=2 999")):
        gpu = ml.nvmlDeviceGetHandleByIndex(0)
        assert ml.nvmlDeviceGetMinorNumber(gpu) == 0
        with pytest.raises(ml.NVMLError_Unknown):
            ml.nvmlDeviceGetMinorNumber(gpu)
        assert ml.nvmlDeviceGetMinorNumber(gpu) == 0


def test_delay(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0\ndelay nvmlDeviceGetCount 30")
    with opened(mock):
        ml.nvmlDeviceGetCount()
    init, count, _ = mock.calls()
    assert count.seconds - init.seconds >= 0.030


@pytest.mark.long
def test_crash(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0\ncrash nvmlDeviceGetCount")
    done = run(mock, "ml.nvmlInit(); ml.nvmlDeviceGetCount()")
    assert done.returncode == -signal.SIGSEGV
    assert mock.calls()[-1].outcome == "crash"


@pytest.mark.long
def test_hang(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0\nhang nvmlDeviceGetCount")
    code = f"import pynvml as ml; from guest_cdi.nvml import load; load({mock.library!r}); ml.nvmlInit(); " \
        "print(1, flush=True); ml.nvmlDeviceGetCount()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=STANDIN.parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
        process.kill()
    assert mock.calls()[-1].outcome == "hang"


MISTAKES = {
    "gpu 1": "gpu wants its index next: 0, 1, 2, ... in order",
    "gpu 0 colour=red": 'unknown key "colour"',
    "gpu 0 minor=x": 'bad value for "minor"',
    "gpu 0 minor=-1": 'bad value for "minor"',
    "gpu 0 bus=0000:zz:00.0": 'bad value for "bus"',
    "gpu 0 pci=10de": 'bad value for "pci"',
    "gpu 0 fabric-cluster=00": 'bad value for "fabric-cluster"',
    "gpu 0 graphics-mhz=1": 'bad value for "graphics-mhz"',
    "gpu 0 uuid=" + "x" * 90: 'bad value for "uuid"',
    "cc feature=maybe": 'bad value for "feature"',
    "cuda new": "wants one number",
    "driver 1 2": "wants one value",
    "log": "wants one path",
    "set gpu=0 mig=1": "set wants gpu=N",
    "gpu 0\nclear gpu=0 now": "clear wants gpu=N",
    "gpu 0 mig=on\nmig gpu=0 gi=1 ci=0 profile=9g.99gb": "unknown MIG profile",
    "gpu 0 mig=on\nmig gpu=0 ci=0": "mig wants gpu=N",
    "gpu 0 mig=on\nmig gpu=0 gi=1 ci=0 profile=3g.40gb slices=4": "that compute instance does not fit",
    "gpu 0 mig=on\ninstance gpu=0 profile=1g": "instance wants gpu=N profile=NAME",
    "gpu 0 mig=on\ninstance gpu=0 profile=7g.80gb start=4": "no room for that GPU instance",
    "fail nvmlDeviceGetName": "fail wants FUNCTION",
    "hang nvmlDeviceGetName 3": "fail wants FUNCTION",
    "fail": "a fault wants a function name",
    "fail nvmlDeviceGetNme 3": "nvmlDeviceGetNme, which is no function of this library",
    "gpus 8": "unknown directive",
    "driver" + " x" * 60: "too many words",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items())
def test_mistakes_in_a_description_are_told(nvml_mock: Describe, capfd: pytest.CaptureFixture[str], text: str,
                                            message: str) -> None:
    load(nvml_mock(text).library)
    with pytest.raises(ml.NVMLError_Unknown):
        ml.nvmlInit()
    assert message in capfd.readouterr().err


def test_a_missing_description_is_told(nvml_mock: Describe, capfd: pytest.CaptureFixture[str]) -> None:
    mock = nvml_mock("gpu 0")
    (mock.folder / "nvml-mock.conf").unlink()
    load(mock.library)
    with pytest.raises(ml.NVMLError_Unknown):
        ml.nvmlInit()
    assert "/etc/nvml-mock.conf: No such file or directory" in capfd.readouterr().err


@pytest.mark.long
def test_the_environment_names_another_description(nvml_mock: Describe, tmp_path: Path) -> None:
    mock = nvml_mock("gpu 0")
    other = tmp_path / "other.conf"
    other.write_text("driver 1.2.3 # a comment\n\ngpu 0\ngpu 1\n")
    code = f"import os; os.environ['NVRC_NVML_MOCK'] = {str(other)!r}; ml.nvmlInit(); " \
        "print(ml.nvmlDeviceGetCount(), ml.nvmlSystemGetDriverVersion())"
    assert run(mock, code).stdout == "2 1.2.3\n"


def test_foreign_handles_are_invalid(nvml_mock: Describe) -> None:
    with opened(nvml_mock("gpu 0\ngpu 1 mig=on\nmig gpu=1 gi=1 ci=0 profile=3g.40gb")):
        mig = ml.nvmlDeviceGetMigDeviceHandleByIndex(ml.nvmlDeviceGetHandleByIndex(1), 0)
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlDeviceGetName(ml.c_nvmlDevice_t())
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(ml.nvmlDeviceGetHandleByIndex(0))
        with pytest.raises(ml.NVMLError_NotSupported):
            ml.nvmlDeviceGetMinorNumber(mig)
        assert ml.nvmlDeviceGetMemoryInfo(mig).total == 40 << 30
        with pytest.raises(ml.NVMLError_NotSupported):
            ml.nvmlDeviceGetMigDeviceHandleByIndex(ml.nvmlDeviceGetHandleByIndex(0), 0)
        with pytest.raises(ml.NVMLError_InvalidArgument):
            ml.nvmlDeviceGetMigDeviceHandleByIndex(ml.nvmlDeviceGetHandleByIndex(1), 7)
