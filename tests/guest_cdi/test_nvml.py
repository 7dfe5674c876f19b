# SPDX-License-Identifier: Apache-2.0
"""The binding to NVML against the stand-in library: what it reads, which calls it makes, and every call failing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.nvml import STANDIN, FakeNvml, MockNvml
from guest_cdi.gpu import Gpu, Mig, Nvml
from guest_cdi.lean.errors import CdiError
from guest_cdi.nvml import OpenNvml, code_name, load

Describe = Callable[[str], MockNvml]

MIXED = """
gpu 0 uuid=GPU-a minor=3 bus=0000:1a:00.0
gpu 1 uuid=GPU-b minor=0 bus=0000:1b:00.0 mig=on
mig gpu=1 gi=2 ci=0 profile=3g.40gb uuid=MIG-a
mig gpu=1 gi=1 ci=0 index=2 profile=3g.40gb slices=2 uuid=MIG-b
gpu 2 uuid=GPU-c minor=1 bus=0000:1c:00.0 mig=unsupported
gpu 3 uuid=GPU-d minor=2 bus=0000:1d:00.0 mig=on
"""
H100 = "NVIDIA H100 80GB HBM3"
GPU_A = Gpu(index=0, uuid="GPU-a", name=H100, minor=3, bus_id="00000000:1A:00.0", mig_capable=True)
GPU_B = Gpu(index=1, uuid="GPU-b", name=H100, minor=0, bus_id="00000000:1B:00.0", mig_capable=True, mig_enabled=True,
            migs=(Mig(index=0, uuid="MIG-a", gi=2, ci=0), Mig(index=2, uuid="MIG-b", gi=1, ci=0)))
GPU_C = Gpu(index=2, uuid="GPU-c", name=H100, minor=1, bus_id="00000000:1C:00.0")
GPU_D = Gpu(index=3, uuid="GPU-d", name=H100, minor=2, bus_id="00000000:1D:00.0", mig_capable=True, mig_enabled=True)


def read(mock: MockNvml, *, drm: bool = False) -> tuple[Gpu, ...]:
    with OpenNvml(mock.library, has_drm=lambda bus_id: drm) as nvml:
        return nvml.gpus()


def test_a_mixed_machine(nvml_mock: Describe) -> None:
    with OpenNvml(nvml_mock(MIXED).library) as nvml:
        asked: Nvml = nvml
        assert asked.driver_version() == "580.95.05"
        assert asked.gpus() == (GPU_A, GPU_B, GPU_C, GPU_D)


def test_a_fake_answers_the_same_questions() -> None:
    fake: Nvml = FakeNvml(found=(GPU_A,))
    assert (fake.driver_version(), fake.gpus()) == ("580.95.05", (GPU_A,))


def test_calls_for_one_whole_gpu(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0")
    read(mock)
    assert mock.names() == [
        "nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetUUID", "nvmlDeviceGetMinorNumber", "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount", "nvmlShutdown",
    ]


@pytest.mark.parametrize("name", ["DGX Display", "NVIDIA DGX Display"])
def test_display_only_boards_are_left_out_and_indices_stay(nvml_mock: Describe, name: str) -> None:
    mock = nvml_mock(f'gpu 0 name="{name}"\ngpu 1\nfail nvmlDeviceGetUUID gpu=0 999')
    assert [(gpu.index, gpu.error) for gpu in read(mock)] == [(1, None)]


GRAPHICS = """
gpu 0 mig=on mig-family=rtx memory=103079215104
mig gpu=0 gi=3 ci=0 profile=1g.24gb+gfx
mig gpu=0 gi=4 ci=0 profile=1g.24gb
"""


def test_graphics_attribute_is_told_by_profile(nvml_mock: Describe) -> None:
    assert [mig.gfx for mig in read(nvml_mock(GRAPHICS), drm=True)[0].migs] == [True, False]


def test_graphics_attribute_is_not_asked_for_without_drm_nodes(nvml_mock: Describe) -> None:
    mock = nvml_mock(GRAPHICS)
    assert [mig.gfx for mig in read(mock)[0].migs] == [False, False]
    assert "nvmlDeviceGetGpuInstanceById" not in mock.names()


def test_drm_is_asked_by_bus_id(nvml_mock: Describe) -> None:
    asked: list[str] = []

    def has_drm(bus_id: str) -> bool:
        asked.append(bus_id)
        return False

    with OpenNvml(nvml_mock(MIXED).library, has_drm=has_drm) as nvml:
        nvml.gpus()
    assert asked == ["00000000:1B:00.0", "00000000:1B:00.0"]


CODES = (1, 2, 3, 4, 6, 9, 13, 15, 18, 27, 28, 999, 12345)
# Calls about the whole machine: any code but success ends the reading.
MACHINE_CALLS = ("nvmlInitWithFlags", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount_v2")
# Calls about one GPU, with the codes that mean "there is none" rather than a failure.
GPU_CALLS: dict[str, tuple[int, ...]] = {
    "nvmlDeviceGetHandleByIndex_v2": (),
    "nvmlDeviceGetName": (),
    "nvmlDeviceGetPciInfo_v3": (),
    "nvmlDeviceGetUUID": (),
    "nvmlDeviceGetMinorNumber": (),
    "nvmlDeviceGetMigMode": (3,),
    "nvmlDeviceGetMaxMigDeviceCount": (),
    "nvmlDeviceGetMigDeviceHandleByIndex": (2, 6),
    "nvmlDeviceGetGpuInstanceId": (),
    "nvmlDeviceGetComputeInstanceId": (),
    "nvmlDeviceGetGpuInstanceById": (),
    "nvmlGpuInstanceGetInfo": (),
    "nvmlDeviceGetGpuInstanceProfileInfoV": (2, 3),
}


def test_the_tables_name_every_call(nvml_mock: Describe) -> None:
    mock = nvml_mock(MIXED)
    with OpenNvml(mock.library, has_drm=lambda bus_id: True) as nvml:
        nvml.driver_version()
        nvml.gpus()
    assert set(mock.names()) == {*MACHINE_CALLS, *GPU_CALLS, "nvmlShutdown"}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", MACHINE_CALLS)
def test_a_failure_of_the_machine_is_an_error_with_its_code(nvml_mock: Describe, call: str, code: int) -> None:
    mock = nvml_mock(f"{MIXED}\nfail {call} {code}")
    with pytest.raises(CdiError) as raised, OpenNvml(mock.library) as nvml:
        nvml.driver_version()
        nvml.gpus()
    assert raised.value.code == "E_CDI_NVML"
    # nvidia-ml-py's name of the call, which has no version suffix
    said = "nvmlInit" if call == "nvmlInitWithFlags" else call.removesuffix("_v2")
    assert raised.value.what == f"{said} returned {code_name(code)} ({code}) in {mock.library}"
    assert raised.value.hint


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("call", "skipped"), GPU_CALLS.items(), ids=list(GPU_CALLS))
def test_a_failure_of_one_gpu_is_its_own(nvml_mock: Describe, call: str, skipped: tuple[int, ...], code: int) -> None:
    mock = nvml_mock(f"{MIXED}\nfail {call} gpu=1 {code}")
    first, broken, *others = read(mock, drm=True)
    assert (first, *others) == (GPU_A, GPU_C, GPU_D)
    assert broken.index == 1
    if code in skipped:
        assert broken.error is None
    else:
        assert broken.error is not None
        assert f"({code})" in broken.error and code_name(code) in broken.error
        assert broken.error.startswith(call.removesuffix("_v2").removesuffix("_v3").removesuffix("V"))


@pytest.mark.parametrize("code", CODES)
def test_a_failing_shutdown_changes_nothing(nvml_mock: Describe, code: int) -> None:
    assert read(nvml_mock(f"{MIXED}\nfail nvmlShutdown {code}")) == (GPU_A, GPU_B, GPU_C, GPU_D)


def test_a_failing_shutdown_does_not_hide_the_error_before(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0\nfail nvmlShutdown 999\nfail nvmlDeviceGetCount 4")
    with pytest.raises(CdiError, match=r"NVML_ERROR_NO_PERMISSION \(4\).*run as root"):
        read(mock)


def test_what_was_read_before_the_failure_is_kept(nvml_mock: Describe) -> None:
    (gpu,) = read(nvml_mock("gpu 0 uuid=GPU-a bus=0000:1a:00.0\nfail nvmlDeviceGetMinorNumber 15"))
    assert gpu == Gpu(index=0, name=H100, bus_id="00000000:1A:00.0", uuid="GPU-a", error="nvmlDeviceGetMinorNumber "
                      "returned NVML_ERROR_GPU_IS_LOST (15); the GPU fell off the bus; read the kernel log for its Xid "
                      "lines and reset it or restart the VM")


def test_text_that_is_not_utf8_is_that_gpus_error(nvml_mock: Describe) -> None:
    mock = nvml_mock("")
    (mock.folder / "nvml-mock.conf").write_bytes(b"driver 1\ngpu 0 name=\xff\xfe\ngpu 1\n")
    broken, sound = read(mock)
    assert broken.error == "nvmlDeviceGetName gave text that is not UTF-8"
    assert sound.error is None


def test_no_gpu_is_no_error_here(nvml_mock: Describe) -> None:
    assert read(nvml_mock("")) == ()


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF truncated", b"no library at all"])
def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "libnvidia-ml.so.1"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CdiError) as raised:
        OpenNvml(str(path))
    assert raised.value.code == "E_CDI_NVML_LIBRARY"
    assert str(path) in raised.value.what


CUTS = """
import sys
from pathlib import Path
from guest_cdi.lean.errors import CdiError
from guest_cdi.nvml import OpenNvml
whole = Path(sys.argv[1]).read_bytes()
for cut in range(0, len(whole), len(whole) // 23):
    path = Path(sys.argv[2], f"{cut}.so")       # a file that is mapped must not be written to
    path.write_bytes(whole[:cut])
    try:
        OpenNvml(str(path))
    except CdiError as err:
        print(err.code)
"""


@pytest.mark.long
def test_no_truncated_library_brings_the_process_down(nvml_standin: Path, tmp_path: Path) -> None:
    """The loader of glibc dies of a segment that is not in the file; what it would refuse, or survive, is its own."""
    done = subprocess.run([sys.executable, "-c", CUTS, str(nvml_standin), str(tmp_path)],
                          capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("E_CDI_NVML_LIBRARY") >= 15


def test_a_fifo_as_library_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "libnvidia-ml.so.1")
    with pytest.raises(CdiError, match="cannot be loaded"):
        OpenNvml(str(tmp_path / "libnvidia-ml.so.1"))


def test_a_library_without_the_function_says_so(tmp_path: Path) -> None:
    source, library = tmp_path / "empty.c", tmp_path / "libnvidia-ml.so.1"
    source.write_text("int nothing;\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=30)
    said = r"nvmlInit returned NVML_ERROR_FUNCTION_NOT_FOUND \(13\)"
    with pytest.raises(CdiError, match=said), OpenNvml(str(library)):
        pass


def test_two_libraries_in_one_process_are_kept_apart(nvml_standin: Path, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        mock = MockNvml(nvml_standin, tmp_path / version, "gpu 0")
        (mock.folder / "nvml-mock.conf").write_text(f"driver {version}\n")
        with OpenNvml(mock.library) as nvml:
            assert nvml.driver_version() == version


def test_the_bound_module_serves_other_calls(nvml_mock: Describe) -> None:
    mock = nvml_mock("cc feature=on\ngpu 0")
    with OpenNvml(mock.library):
        assert load(mock.library).nvmlSystemGetConfComputeState().ccFeature == 1


@pytest.mark.long
def test_the_library_is_found_by_path_alone(nvml_mock: Describe) -> None:
    mock = nvml_mock("gpu 0")
    code = f"from guest_cdi.nvml import OpenNvml\nwith OpenNvml({mock.library!r}) as n: print(len(n.gpus()))"
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30,
                          cwd=STANDIN.parents[2], env=environment)
    assert (done.stdout, done.stderr) == ("1\n", "")
