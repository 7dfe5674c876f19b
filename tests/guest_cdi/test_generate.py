# SPDX-License-Identifier: Apache-2.0
"""Whole documents for described machines, and every way in which a machine can be unfit for one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.elf import library_cache, shared_object
from fakes.machine import ROOTS, DescribedHost, Machine, Node, document_of, load, parse, without
from fakes.nvml import FakeNvml
from guest_cdi import cli
from guest_cdi.discover.hooks import NAMES, HookStyle
from guest_cdi.generate import COMMON, OF_FILES, Generated, Known, Options, generate, open_driver, read_files
from guest_cdi.gpu import Gpu, Mig
from guest_cdi.hooks.arguments import parse_calls
from guest_cdi.host import LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.merge import tidy
from guest_cdi.naming import Strategy
from guest_cdi.render import document, render, render_yaml
from guest_cdi.spec import ContainerEdits, Hook, Mount, Spec
from guest_cdi.validate import check_document
from guest_cdi.versions import RELEASE_1_18, RELEASE_1_19

CASES = sorted(path.parent.name for path in ROOTS.glob("*/machine.txt"))
EXTENSION = "/run/kata-extensions/gpu"
EXTENSION_LIBS = f"{EXTENSION}/usr/lib/x86_64-linux-gnu"
MONOLITH_LIBS = "/lib/x86_64-linux-gnu"
IN_EXTENSION = Options(driver_root=EXTENSION, dev_root="/", hook_path=f"{EXTENSION}/bin/nvidia-cdi-hook")


@pytest.mark.parametrize("case", CASES)
def test_golden_document(case: str, tmp_path: Path) -> None:
    """After an intended change: python -m fakes.machine CASE, in tests/, prints the new one."""
    assert document_of(case, tmp_path) == (ROOTS / case / "expected.yaml").read_text()


@pytest.mark.parametrize("case", CASES)
def test_golden_document_of_the_reference(case: str, tmp_path: Path) -> None:
    """compat.yaml, where our own document differs, was seen to be what nvidia-ctk 1.20 writes on that machine."""
    golden = ROOTS / case / "compat.yaml"
    wanted = golden if golden.exists() else ROOTS / case / "expected.yaml"
    assert document_of(case, tmp_path, "--compat=nvidia-ctk") == wanted.read_text()


def run(machine: Machine, folder: Path, options: Options | None = None) -> Generated:
    return generate(machine.host(folder), machine.nvml(), options or Options())


def options_of(machine: Machine) -> Options:
    return cli.read_options(cli.build_parser().parse_args(machine.arguments, cli.Arguments()))


def failure(machine: Machine, folder: Path, options: Options | None = None) -> CdiError:
    with pytest.raises(CdiError) as caught:
        run(machine, folder, options)
    return caught.value


def names(spec: Spec) -> list[str]:
    return [device.name for device in spec.devices]


def mounts(spec: Spec) -> dict[str, Mount]:
    return {mount.container_path: mount for mount in spec.container_edits.mounts}


def hook_words(spec: Spec) -> list[str]:
    return [hook.args[1] for hook in spec.container_edits.hooks]


@pytest.mark.parametrize("case", CASES)
def test_what_the_drivers_files_say_may_be_known_beforehand(case: str, tmp_path: Path) -> None:
    machine = load(case)
    host, nvml = machine.host(tmp_path), machine.nvml()
    options = options_of(machine)
    known = read_files(host, nvml, options)
    assert generate(host, nvml, options, known) == generate(host, nvml, options)


def test_what_was_known_of_another_version_is_looked_up_again(tmp_path: Path) -> None:
    machine = load("composable")
    host, nvml, options = machine.host(tmp_path), machine.nvml(), options_of(machine)
    driver = replace(open_driver(host, nvml, options), version="1.2.3", library_dirs=())
    strange = Known(driver, {discover: COMMON[0](open_driver(host, nvml, options)) for discover in OF_FILES})
    assert generate(host, nvml, options, strange) == generate(host, nvml, options)


def test_discoverers_run_in_the_order_of_the_document() -> None:
    assert [discover.__name__ for discover in COMMON] == [
        "find_control_nodes", "find_graphics", "find_libraries", "find_sockets", "find_topology", "find_firmware",
        "find_programs", "find_application_profile"]


def test_the_same_machine_gives_the_same_bytes(tmp_path: Path) -> None:
    machine = load("host-graphics")
    host = machine.host(tmp_path)
    assert render_yaml(generate(host, machine.nvml()).spec) == render_yaml(generate(host, machine.nvml()).spec)


def test_libraries_are_scanned_once_whatever_the_number_of_gpus(tmp_path: Path) -> None:
    machine = load("monolith")
    host = machine.host(tmp_path)
    generate(host, machine.nvml())
    alone = host.scanned
    machine.gpus[:] = [replace(machine.gpus[0], index=index, minor=0, uuid=f"GPU-{index}") for index in range(16)]
    host = DescribedHost(LinuxHost(str(tmp_path)), machine.nodes)
    assert len(names(generate(host, machine.nvml()).spec)) == 33
    assert [path for path in host.scanned if "/lib" in path] == [path for path in alone if "/lib" in path]


# Hooks in one start

HOOK_PATH = "/bin/nvidia-cdi-hook"


def hooks_with(folder: Path, options: Options, case: str = "monolith") -> list[Hook]:
    folder.mkdir()
    return list(run(load(case), folder, options).spec.container_edits.hooks)


def test_a_combined_hook_has_the_words_of_the_separate_ones(tmp_path: Path) -> None:
    separate = hooks_with(tmp_path / "a", Options(hook_style=HookStyle.SEPARATE))
    (combined,) = hooks_with(tmp_path / "b", Options(hook_style=HookStyle.COMBINED))
    assert combined.args[:2] == ("nvidia-cdi-hook", "run")
    parts = " ".join(combined.args[2:]).split(" -- ")
    assert parts == [" ".join(hook.args[1:]) for hook in separate]
    assert (combined.path, combined.env, combined.hook_name) == (HOOK_PATH, ("NVIDIA_CTK_DEBUG=false",), "createContainer")
    assert (combined.timeout, {hook.timeout for hook in separate}) == (60, {None}), "as long as all of them together may take"
    assert [call.name for call in parse_calls(list(combined.args[1:]))] == [hook.args[1] for hook in separate]


@pytest.mark.parametrize(("running", "style", "strict", "count"), [
    ("", HookStyle.AUTO, True, 5),
    ("/proc/self/exe", HookStyle.AUTO, True, 5),
    (HOOK_PATH, HookStyle.AUTO, True, 1),
    (HOOK_PATH, HookStyle.AUTO, False, 5),
    (HOOK_PATH, HookStyle.SEPARATE, True, 5),
    ("", HookStyle.COMBINED, False, 5),
], ids=["from sources", "another program", "this program", "as the reference", "told not to", "never as the reference"])
def test_only_the_running_program_is_known_to_combine(running: str, style: HookStyle, strict: bool, count: int,
                                                      tmp_path: Path) -> None:
    """/bin/nvidia-cdi-hook is a link here, as in an image; what it leads to is the frozen program."""
    machine = load("monolith")
    program = "/usr/lib/nvrc/nvrc"
    machine.files[program] = (0o755, b"")
    machine.files.pop(HOOK_PATH)
    machine.links[HOOK_PATH] = f"..{program}"
    running = program if running == HOOK_PATH else running
    made = run(machine, tmp_path, Options(running_program=running, hook_style=style, strict=strict))
    assert len(made.spec.container_edits.hooks) == count


def test_a_hook_program_by_name_is_the_one_that_is_meant(tmp_path: Path) -> None:
    error = failure(load("monolith"), tmp_path, Options(hook_path="my-hook"))
    assert error.code == "E_CDI_HOOK_PATH"
    assert "no program my-hook in /usr/local/sbin" in error.what


def test_a_hook_program_that_is_not_there_is_not_this_one(tmp_path: Path) -> None:
    options = Options(hook_path="/no/program", running_program="/no/program", disabled_hooks=frozenset({"all"}),
                      enabled_hooks=frozenset())
    assert hooks_with(tmp_path / "a", options) == []


def test_a_single_hook_and_those_of_a_device_stay_as_they_are(tmp_path: Path) -> None:
    rest = frozenset(NAMES) - {"update-ldcache"}
    (hook,) = hooks_with(tmp_path / "a", Options(hook_style=HookStyle.COMBINED, disabled_hooks=rest))
    assert hook.args[:2] == ("nvidia-cdi-hook", "update-ldcache")
    machine = load("monolith")
    machine.nodes["/dev/dri/card0"] = Node(major=226, minor=0)
    machine.files["/sys/bus/pci/devices/0000:41:00.0/drm/card0"] = (0o444, b"")
    machine.links["/dev/dri/by-path/pci-0000:41:00.0-card"] = "../card0"
    (tmp_path / "b").mkdir()
    spec = run(machine, tmp_path / "b", Options(hook_style=HookStyle.COMBINED)).spec
    assert {hook.args[1] for device in spec.devices for hook in device.container_edits.hooks} == {"create-symlinks"}
    assert hook_words(spec) == ["run"]


def test_a_gpu_without_a_folder_of_drm_nodes_is_asked_for_it_in_one_call(tmp_path: Path) -> None:
    machine = load("monolith")
    host = machine.host(tmp_path)
    generate(host, machine.nvml(), Options())
    assert host.scanned
    assert [path for path in host.scanned if path.endswith("/drm")] == []


# What the reference does not do

SOCKETS = ("/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket")


def test_sockets_of_the_machine_are_found_with_the_driver_in_an_extension(tmp_path: Path) -> None:
    machine = load("extension-mig")
    host = machine.host(tmp_path)
    ours = generate(host, machine.nvml(), IN_EXTENSION).spec
    theirs = generate(host, machine.nvml(), replace(IN_EXTENSION, strict=False)).spec
    assert [mounts(ours)[path].host_path for path in SOCKETS] == list(SOCKETS)
    assert "ro" not in mounts(ours)[SOCKETS[0]].options
    assert not set(SOCKETS) & set(mounts(theirs))


def test_a_socket_below_the_driver_root_goes_before_that_of_the_machine(tmp_path: Path) -> None:
    machine = load("extension-mig")
    machine.sockets.append(f"{EXTENSION}/run/nvidia-persistenced/socket")
    spec = run(machine, tmp_path, IN_EXTENSION).spec
    assert mounts(spec)[SOCKETS[0]].host_path == f"{EXTENSION}{SOCKETS[0]}"


def test_an_empty_cache_is_none(tmp_path: Path) -> None:
    """An image without one has the empty file as a place for a later mount."""
    machine = load("monolith")
    machine.files["/etc/ld.so.cache"] = (0o644, b"")
    assert render_yaml(run(machine, tmp_path).spec) == (ROOTS / "monolith" / "expected.yaml").read_text()
    machine.files["/etc/ld.so.cache"] = (0o644, b"ld.so-1.7.0")
    (tmp_path / "b").mkdir()
    assert failure(machine, tmp_path / "b").code == "E_CDI_LDCACHE"


def test_missing_libcuda_is_an_error_that_says_where_it_was_searched(tmp_path: Path) -> None:
    machine = without(load("extension-mig"), [f"{EXTENSION_LIBS}/libcuda.so.595.58.03", f"{EXTENSION_LIBS}/libcuda.so.1"])
    error = failure(machine, tmp_path, IN_EXTENSION)
    assert error.code == "E_CDI_LIBCUDA"
    assert "libcuda.so.595.58.03" in error.what
    assert EXTENSION_LIBS in error.what


def test_without_libcuda_the_reference_goes_by_libnvidia_ml(tmp_path: Path) -> None:
    machine = without(load("monolith"), [f"{MONOLITH_LIBS}/libcuda.so.595.58.03", f"{MONOLITH_LIBS}/libcuda.so.1"])
    host = machine.host(tmp_path)
    spec = generate(host, machine.nvml(), Options(strict=False)).spec
    assert spec.container_edits.env[0] == f"NVIDIA_CTK_LIBCUDA_DIR={MONOLITH_LIBS}"
    with pytest.raises(CdiError, match=r"no library of driver 595\.58\.03"):
        generate(host, machine.nvml(), Options(strict=False, release=RELEASE_1_18))


MIG_FAULTS = {
    "no entry in mig-minors": ([], {"/proc/driver/nvidia-caps/mig-minors": b"config 1\n"},
                               r"MIG device 1:0 \(MIG-.*\): .*mig-minors has no entry gpu3/gi1/access"),
    "an endless number in mig-minors": ([], {"/proc/driver/nvidia-caps/mig-minors": b"gpu3/gi1/access " + b"1" * 5000 + b"\n"},
                                        "has no entry gpu3/gi1/access"),
    "no mig-minors": (["/proc/driver/nvidia-caps/mig-minors"], {}, "has no entry gpu3/gi1/access"),
    "no node of the GPU instance": (["/dev/nvidia-caps/nvidia-cap417"], {},
                                    "MIG device 1:0 .* has no character device /dev/nvidia-caps/nvidia-cap417"),
    "no node of the compute instance": (["/dev/nvidia-caps/nvidia-cap419"], {},
                                        "MIG device 1:2 .* has no character device /dev/nvidia-caps/nvidia-cap419"),
}


@pytest.mark.parametrize(("gone", "changed", "message"), MIG_FAULTS.values(), ids=MIG_FAULTS.keys())
def test_a_mig_device_without_its_capabilities_is_an_error(gone: list[str], changed: dict[str, bytes], message: str,
                                                           tmp_path: Path) -> None:
    machine = without(load("extension-mig"), gone)
    machine.files.update({path: (0o444, content) for path, content in changed.items()})
    with pytest.raises(CdiError, match=message) as caught:
        run(machine, tmp_path, IN_EXTENSION)
    assert caught.value.code == "E_CDI_MIG_CAPABILITY"


def test_the_reference_drops_a_missing_capability_node(tmp_path: Path) -> None:
    machine = without(load("extension-mig"), ["/dev/nvidia-caps/nvidia-cap417"])
    result = run(machine, tmp_path, replace(IN_EXTENSION, strict=False))
    device = next(device for device in result.spec.devices if device.name == "1:0")
    assert [node.path for node in device.container_edits.device_nodes] == [
        "/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap418"]
    assert "/dev/nvidia-caps/nvidia-cap417" in result.missing


@pytest.mark.parametrize("strict", [True, False])
def test_a_gpu_without_its_node_is_an_error(tmp_path: Path, strict: bool) -> None:
    error = failure(without(load("monolith"), ["/dev/nvidia0"]), tmp_path, Options(strict=strict))
    assert error.code == "E_CDI_GPU_NODE"
    assert error.what == "GPU 0 (GPU-3f6c1a52-8e1d-4b0a-9c57-2d1f0b7e6a10) has no character device /dev/nvidia0"


def test_a_link_is_no_node(tmp_path: Path) -> None:
    machine = without(load("monolith"), ["/dev/nvidia0"])
    machine.links["/dev/nvidia0"] = "nvidiactl"
    assert failure(machine, tmp_path).code == "E_CDI_GPU_NODE"


def test_a_mig_device_without_its_gpus_node_is_an_error(tmp_path: Path) -> None:
    error = failure(without(load("extension-mig"), ["/dev/nvidia3"]), tmp_path, IN_EXTENSION)
    assert (error.code, error.what.partition(" (")[0]) == ("E_CDI_GPU_NODE", "MIG device 1:0")


@pytest.mark.parametrize("hook", ["missing", "not executable"])
def test_a_hook_program_that_cannot_run_is_an_error(hook: str, tmp_path: Path) -> None:
    machine = without(load("monolith"), ["/bin/nvidia-cdi-hook"])
    if hook == "not executable":
        machine.files["/usr/bin/nvidia-cdi-hook"] = (0o644, b"")
    host = machine.host(tmp_path)
    with pytest.raises(CdiError, match="/usr/bin/nvidia-cdi-hook is not an executable file") as caught:
        generate(host, machine.nvml())
    assert caught.value.code == "E_CDI_HOOK_PATH"
    assert generate(host, machine.nvml(), Options(strict=False)).spec.container_edits.hooks
    assert hook_words(generate(host, machine.nvml(), Options(disabled_hooks=frozenset({"all"}))).spec) == []


@pytest.mark.parametrize(("path", "written"), [
    ("", "/bin/nvidia-cdi-hook"), ("nvidia-cdi-hook", "/bin/nvidia-cdi-hook"), ("/anything/at/all", "/anything/at/all"),
    ("nvidia-ctk", "/usr/bin/nvidia-ctk"), ("no-such", "/usr/bin/nvidia-cdi-hook"),
])
def test_the_hook_program_is_searched_unless_it_is_given(path: str, written: str, tmp_path: Path) -> None:
    spec = run(load("monolith"), tmp_path, Options(strict=False, hook_path=path)).spec
    assert spec.container_edits.hooks[0].path == written


def test_kernel_and_user_space_of_two_versions_is_an_error(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.files["/proc/driver/nvidia/version"] = (
        0o444, b"NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC version: 12.2.0\n")
    error = failure(machine, tmp_path)
    assert error.code == "E_CDI_DRIVER_MISMATCH"
    assert "580.95.05" in error.what
    assert "595.58.03" in error.what


def test_a_kernel_that_does_not_tell_its_version_is_believed(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.files["/proc/driver/nvidia/version"] = (0o444, b"NVRM version: unknown\n")
    assert names(run(machine, tmp_path).spec)


def test_libraries_of_another_version_than_nvmls_is_an_error(tmp_path: Path) -> None:
    machine = load("extension-mig")
    machine.driver = "580.95.05"
    error = failure(machine, tmp_path, IN_EXTENSION)
    assert error.code == "E_CDI_DRIVER_MISMATCH"
    assert error.what == f"the running driver is 580.95.05, but {EXTENSION_LIBS}/libcuda.so.595.58.03 is of version 595.58.03"


def test_two_driver_versions_side_by_side_is_an_error(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.files["/usr/lib64/libcuda.so.580.95.05"] = (0o644, shared_object("libcuda.so.1"))
    error = failure(machine, tmp_path)
    assert error.code == "E_CDI_DRIVER_MISMATCH"
    assert "/lib/x86_64-linux-gnu/libcuda.so.595.58.03" in error.what
    assert "/usr/lib64/libcuda.so.580.95.05" in error.what


def test_the_reference_takes_the_running_one_of_two_versions(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.files["/usr/lib64/libcuda.so.580.95.05"] = (0o644, shared_object("libcuda.so.1"))
    spec = run(machine, tmp_path, Options(strict=False)).spec
    assert not any("580.95.05" in path for path in mounts(spec))


def test_a_library_that_leads_to_another_version_is_an_error(tmp_path: Path) -> None:
    machine = without(load("monolith"), [f"{MONOLITH_LIBS}/libcuda.so.595.58.03"])
    machine.files["/opt/libcuda.so.580.95.05"] = (0o644, shared_object("libcuda.so.1"))
    machine.links[f"{MONOLITH_LIBS}/libcuda.so.595.58.03"] = "/opt/libcuda.so.580.95.05"
    error = failure(machine, tmp_path, Options(strict=False))
    assert error.code == "E_CDI_DRIVER_MISMATCH"
    assert "leads to /opt/libcuda.so.580.95.05" in error.what


def test_a_library_of_the_driver_that_is_no_library_is_an_error(tmp_path: Path) -> None:
    machine = load("monolith")
    path = f"{MONOLITH_LIBS}/libnvidia-ml.so.595.58.03"
    machine.files[path] = (0o644, shared_object("libnvidia-ml.so.1")[:100])
    host = machine.host(tmp_path)
    with pytest.raises(CdiError, match=f"{path}: it is truncated") as caught:
        generate(host, machine.nvml())
    assert caught.value.code == "E_CDI_LIBRARY"
    lenient = generate(host, machine.nvml(), Options(strict=False))
    assert path in mounts(lenient.spec)
    assert f"SONAME of {path}" in lenient.missing


def test_a_library_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    machine = load("monolith")
    host = machine.host(tmp_path)
    real = host.open

    def refuse(path: str) -> int:
        if path.endswith("libcuda.so.595.58.03"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    host.open = refuse
    with pytest.raises(CdiError, match=r"libcuda.so.595.58.03: it cannot be opened: Permission denied"):
        generate(host, machine.nvml())


def test_a_driver_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    error = failure(load("monolith"), tmp_path, Options(driver_root="/nowhere"))
    assert (error.code, error.what) == ("E_CDI_DRIVER_ROOT", "/nowhere: No such file or directory")


def test_a_name_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    machine = load("monolith")
    host = machine.host(tmp_path)
    (tmp_path / "lib/x86_64-linux-gnu" / os.fsdecode(b"lib\xe9.so.595.58.03")).write_bytes(b"")
    with pytest.raises(CdiError, match="not UTF-8"):
        generate(host, machine.nvml())


# One bad GPU among others

def faulty_machine() -> Machine:
    machine = load("extension-mig")
    machine.gpus.append(Gpu(index=2, uuid="GPU-x", minor=9, bus_id="00000000:43:00.0"))
    machine.gpus.append(Gpu(index=3, error="nvmlDeviceGetUUID returned NVML_ERROR_GPU_IS_LOST (15)"))
    return without(machine, ["/dev/nvidia-caps/nvidia-cap419"])


def test_one_bad_gpu_stops_the_whole_unless_asked_otherwise(tmp_path: Path) -> None:
    assert failure(faulty_machine(), tmp_path, IN_EXTENSION).code == "E_CDI_GPU_NODE"


def test_keep_going_names_the_bad_and_describes_the_good(tmp_path: Path) -> None:
    result = run(faulty_machine(), tmp_path, replace(IN_EXTENSION, keep_going=True))
    assert names(result.spec) == ["0", "1:0", "GPU-3f6c1a52-8e1d-4b0a-9c57-2d1f0b7e6a10",
                                  "MIG-6d1c7d2e-53f4-5a0e-8a55-0f5f8ad0c6be", "all"]
    assert {(entry.device.partition(" (")[0], entry.reason.code) for entry in result.skipped} == {
        ("GPU 2", "E_CDI_GPU_NODE"), ("GPU 3", "E_CDI_GPU"), ("MIG device 1:2", "E_CDI_MIG_CAPABILITY")}
    assert any("GPU_IS_LOST" in entry.reason.what for entry in result.skipped)


def test_a_bad_gpu_that_nobody_asked_for_is_no_failure(tmp_path: Path) -> None:
    assert names(run(faulty_machine(), tmp_path, replace(IN_EXTENSION, device_ids=("0",))).spec)[0] == "0"


@pytest.mark.long
def test_nothing_but_bad_gpus_is_a_failure_with_all_the_reasons(tmp_path: Path) -> None:
    machine = replace(load("monolith"), gpus=[Gpu(index=0, error="first"), Gpu(index=1, error="second")])
    error = failure(machine, tmp_path, Options(keep_going=True))
    assert error.code == "E_CDI_NO_GPU"
    assert "first" in error.what
    assert "second" in error.what


def test_no_gpu_is_a_failure(tmp_path: Path) -> None:
    assert failure(replace(load("monolith"), gpus=[]), tmp_path).what == "NVML lists no usable GPU"


# Options

@pytest.mark.parametrize(("strategies", "wanted"), [
    ((Strategy.INDEX,), ["0", "all"]),
    ((Strategy.TYPE_INDEX,), ["all", "gpu0"]),
    ((Strategy.UUID, Strategy.TYPE_INDEX), ["GPU-3f6c1a52-8e1d-4b0a-9c57-2d1f0b7e6a10", "all", "gpu0"]),
])
def test_strategies(strategies: tuple[Strategy, ...], wanted: list[str], tmp_path: Path) -> None:
    spec = run(load("monolith"), tmp_path, Options(strategies=strategies)).spec
    assert names(spec) == wanted
    assert spec.version == ("0.5.0" if Strategy.INDEX in strategies else "0.3.0")


def test_the_device_none_has_nothing_and_no_all_beside_it(tmp_path: Path) -> None:
    spec = run(load("monolith"), tmp_path, Options(device_ids=("0", "none"))).spec
    assert names(spec) == ["none"]
    assert spec.devices[0].container_edits.env == ("NVCT_EMPTY_DEVICE=",)


def test_a_uuid_called_all_is_not_doubled(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.gpus[0] = replace(machine.gpus[0], uuid="all")
    assert names(run(machine, tmp_path).spec) == ["0", "all"]


@pytest.mark.parametrize("uuid", ["", "GPU-", "GPU/1", "0"])
def test_a_uuid_that_cannot_be_a_name_is_an_error(uuid: str, tmp_path: Path) -> None:
    machine = load("monolith")
    machine.gpus[0] = replace(machine.gpus[0], uuid=uuid)
    assert failure(machine, tmp_path).code == "E_CDI_INVALID"


@pytest.mark.parametrize("options", [Options(vendor="-x"), Options(kind_class="a/b"), Options(vendor="")])
def test_a_kind_that_is_none_is_an_error(options: Options, tmp_path: Path) -> None:
    assert failure(load("monolith"), tmp_path, options).code == "E_CDI_USAGE"


def test_switches_leave_out_what_they_say(tmp_path: Path) -> None:
    machine = load("extension-drm-gid")
    machine.sockets.append(SOCKETS[0])
    host = machine.host(tmp_path)
    spec = generate(host, machine.nvml(), replace(
        IN_EXTENSION, sockets=False, node_gids=False, all_device=False, ldconfig_path="/sbin/ldconfig")).spec
    assert SOCKETS[0] not in mounts(spec)
    assert spec.version == "0.5.0"
    assert "all" not in names(spec)
    cache_hook = spec.container_edits.hooks[2]
    assert cache_hook.args[1:4] == ("update-ldcache", "--ldconfig-path", "/sbin/ldconfig")


def test_libraries_without_a_version_on_request(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.files[f"{MONOLITH_LIBS}/libOpenCL.so"] = (0o644, shared_object("libOpenCL.so.1"))
    host = machine.host(tmp_path)
    assert f"{MONOLITH_LIBS}/libOpenCL.so" not in mounts(generate(host, machine.nvml()).spec)
    assert f"{MONOLITH_LIBS}/libOpenCL.so" in mounts(
        generate(host, machine.nvml(), Options(explicit_libraries=True)).spec)


def test_own_search_paths(tmp_path: Path) -> None:
    machine = load("monolith")
    machine.files["/cfg/OpenCL/vendors/nvidia.icd"] = (0o644, b"x")
    spec = run(machine, tmp_path, Options(library_search_paths=("/usr/../lib/x86_64-linux-gnu",),
                                          config_search_paths=("/cfg",))).spec
    assert mounts(spec)["/etc/OpenCL/vendors/nvidia.icd"].host_path == "/cfg/OpenCL/vendors/nvidia.icd"
    assert f"{MONOLITH_LIBS}/libcuda.so.595.58.03" in mounts(spec)


def test_a_library_outside_the_driver_root_is_taken_from_inside_it_or_not_at_all(tmp_path: Path) -> None:
    machine = load("extension-mig")
    machine.links[f"{EXTENSION_LIBS}/libnvidia-cfg.so.595.58.03"] = "/usr/lib/libnvidia-cfg.so.595.58.03"
    machine.links[f"{EXTENSION_LIBS}/libnvcuvid.so.595.58.03"] = "/usr/lib/libnvcuvid.so.595.58.03"
    for name in ("libnvidia-cfg", "libnvcuvid"):
        machine.files[f"/usr/lib/{name}.so.595.58.03"] = (0o644, shared_object(f"{name}.so.1"))
    machine.files[f"{EXTENSION}/usr/lib/libnvcuvid.so.595.58.03"] = (0o644, shared_object("libnvcuvid.so.1"))
    result = run(machine, tmp_path, IN_EXTENSION)
    assert mounts(result.spec)["/usr/lib/libnvcuvid.so.595.58.03"].host_path == (
        f"{EXTENSION}/usr/lib/libnvcuvid.so.595.58.03")
    assert not any("libnvidia-cfg" in path for path in mounts(result.spec))
    assert f"{EXTENSION}/usr/lib/libnvidia-cfg.so.595.58.03" in result.missing


def test_libraries_at_the_root_of_an_extension(tmp_path: Path) -> None:
    """The reference makes an empty directory of it and then mounts none of them."""
    machine = parse("""
        driver 580.1
        lib /ext libcuda.so.580.1 libcuda.so.1
        lib /ext libnvidia-ml.so.580.1 libnvidia-ml.so.1
        file /ext/bin/nvidia-cdi-hook 0755
        char /dev/nvidia0 195 0
        gpu 0 0 00000000:00:01.0 GPU-a
    """)
    options = Options(driver_root="/ext/", dev_root="/", hook_path="/ext/bin/nvidia-cdi-hook")
    host = machine.host(tmp_path)
    ours = generate(host, machine.nvml(), options).spec
    assert ours.container_edits.env[0] == "NVIDIA_CTK_LIBCUDA_DIR=/"
    assert "libcuda.so.1::/libcuda.so" in ours.container_edits.hooks[0].args
    theirs = generate(host, machine.nvml(), replace(options, strict=False)).spec
    assert theirs.container_edits.env[0] == "NVIDIA_CTK_LIBCUDA_DIR="
    assert mounts(theirs) == {}
    assert "update-ldcache" not in hook_words(theirs)
    older = generate(host, machine.nvml(), replace(options, strict=False, release=RELEASE_1_19)).spec
    assert "update-ldcache" in hook_words(older)


def test_older_releases(tmp_path: Path) -> None:
    machine = load("host-graphics")
    host = machine.host(tmp_path)
    newest = generate(host, machine.nvml(), Options(strict=False)).spec
    older = generate(host, machine.nvml(), Options(strict=False, release=RELEASE_1_19)).spec
    oldest = generate(host, machine.nvml(), Options(strict=False, release=RELEASE_1_18)).spec
    assert hook_words(newest) == [*hook_words(older), "update-application-profile"]
    gone = {path for path in mounts(newest) if path not in mounts(older)}
    assert {path.rpartition("/")[2] for path in gone} == {
        "nvidia-xconfig", "nvidia.icd", "libnvidia-nvvm70.so.4", "libnvidia-egl-xcb.so.1.0.3", "20_nvidia_xcb.json",
        "libnvidia-encode.so.580.95.05", "libnvcuvid.so.580.95.05", "15_nvidia_gbm.json", "10-nvidia.conf"}
    assert older.container_edits.env[0] == "NVIDIA_CTK_LIBCUDA_DIR=/usr/lib64"
    assert "/usr/local/share/egl/egl_external_platform.d/15_nvidia_gbm.json" in mounts(older)
    assert mounts(older)["/etc/glvnd/egl_vendor.d/10_nvidia.json"]
    assert mounts(older)["/usr/share/glvnd/egl_vendor.d/10_nvidia.json"]
    assert all(node.major == 0 and node.file_mode is None for device in oldest.devices
               for node in device.container_edits.device_nodes)
    assert mounts(oldest)[SOCKETS[0]].options == ("ro", "nosuid", "nodev", "rbind", "rprivate", "noexec")
    assert not any("wayland2" in path for path in mounts(oldest))
    assert any("wayland2" in path for path in mounts(older))


def test_nvml_that_does_not_know_its_version(tmp_path: Path) -> None:
    class Silent(FakeNvml):
        def driver_version(self) -> str:
            raise CdiError("E_CDI_NVML", "nvmlSystemGetDriverVersion returned NVML_ERROR_UNKNOWN (999)")

    machine = load("monolith")
    host = machine.host(tmp_path)
    nvml = Silent(found=tuple(machine.gpus))
    with pytest.raises(CdiError, match="nvmlSystemGetDriverVersion"):
        generate(host, nvml)
    assert generate(host, nvml, Options(strict=False)).driver_version == "595.58.03"
    with pytest.raises(CdiError, match="neither NVML nor") as caught:
        generate(host, nvml, Options(strict=False, driver_root="/usr"))
    assert caught.value.code == "E_CDI_DRIVER_VERSION"


def test_a_fake_nvml_is_three_lines(tmp_path: Path) -> None:
    class Fake:
        def driver_version(self) -> str: return "595.58.03"
        def gpus(self) -> tuple[Gpu, ...]: return (Gpu(index=0, uuid="GPU-a", minor=0),)

    assert names(generate(load("monolith").host(tmp_path), Fake()).spec) == ["0", "GPU-a", "all"]


# Any machine

OPTIONAL = {case: [path for path in (*load(case).files, *load(case).links, *load(case).sockets, *load(case).nodes)
                   if not path.startswith(("/dev/nvidia0", "/dev/nvidia3", "/dev/nvidia-caps", "/proc"))
                   and "libcuda.so" not in path and "nvidia-cdi-hook" not in path]
            for case in ("monolith", "host-graphics", "extension-mig")}


@pytest.mark.long
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_subset_of_optional_files_gives_a_valid_document(tmp_path_factory: pytest.TempPathFactory,
                                                             data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(sorted(OPTIONAL)))
    gone: Iterable[str] = data.draw(st.sets(st.sampled_from(OPTIONAL[case])))
    options = IN_EXTENSION if case == "extension-mig" else Options()
    spec = run(without(load(case), gone), tmp_path_factory.mktemp("machine"), options).spec
    assert check_document(document(spec)) == ()
    assert not {mount.host_path for mount in spec.container_edits.mounts} & set(gone)


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_any_mix_of_whole_and_split_gpus(shape: list[tuple[bool, int]], group: int) -> None:
    """Every device is there once per strategy, whole GPUs only when not split, and `all` is their union."""
    import tempfile

    machine = load("extension-mig")
    machine.gpus.clear()
    minors = []
    for index, (split, parts) in enumerate(shape):
        minor = len(shape) - index
        machine.nodes[f"/dev/nvidia{minor}"] = Node(major=195, minor=minor, mode=0o660, gid=group)
        migs = []
        for part in range(parts if split else 0):
            minors += [f"gpu{minor}/gi{part}/access {100 * minor + 2 * part}",
                       f"gpu{minor}/gi{part}/ci0/access {100 * minor + 2 * part + 1}"]
            for number in (100 * minor + 2 * part, 100 * minor + 2 * part + 1):
                machine.nodes[f"/dev/nvidia-caps/nvidia-cap{number}"] = Node(major=237, minor=number, mode=0o444)
            migs.append(Mig(index=part, uuid=f"MIG-{index}-{part}", gi=part, ci=0))
        machine.gpus.append(Gpu(index=index, minor=minor, uuid=f"GPU-{index}", bus_id=f"00000000:{index:02X}:00.0",
                                mig_capable=True, mig_enabled=split, migs=tuple(migs)))
    machine.files["/proc/driver/nvidia-caps/mig-minors"] = (0o444, "\n".join(minors).encode())
    wanted = [str(index) for index, (split, _) in enumerate(shape) if not split]
    wanted += [f"{index}:{part}" for index, (split, parts) in enumerate(shape) if split for part in range(parts)]
    with tempfile.TemporaryDirectory() as folder:
        if not wanted:
            assert failure(machine, Path(folder), IN_EXTENSION).code == "E_CDI_NO_GPU"
            return
        spec = run(machine, Path(folder), IN_EXTENSION).spec
    assert [name for name in names(spec) if name[0].isdigit()] == sorted(wanted)
    assert len(names(spec)) == 2 * len(wanted) + 1
    everything = {node for device in spec.devices[:-1] for node in device.container_edits.device_nodes}
    assert set(spec.devices[-1].container_edits.device_nodes) == everything
    assert check_document(document(spec)) == ()


def test_folders_of_firmware_that_cannot_be_are_passed_over(tmp_path: Path) -> None:
    """A NUL was a ValueError, a byte that is not UTF-8 an error of its own that had no code."""
    machine = load("extension-mig")
    machine.files["/sys/module/firmware_class/parameters/path"] = (0o444, b"/a\0b:/\xff\n")
    assert run(machine, tmp_path, IN_EXTENSION).spec.devices
    edits = tidy(ContainerEdits(mounts=(Mount(host_path="/\udcff", container_path="/\udcff"), Mount(host_path="/a", container_path="/a"))))
    with pytest.raises(CdiError) as caught:
        render(Spec(kind="a/b", devices=(), container_edits=edits), "yaml")
    assert caught.value.code == "E_CDI_NAME_ENCODING"


def test_libraries_that_the_cache_cannot_list_are_an_error_in_every_mode(tmp_path: Path) -> None:
    machine = load("cache-only")
    machine.links["/opt/driver/var/lib/nvidia/lib64/libloop.so.580.95.05"] = "libloop.so.580.95.05"
    machine.files["/opt/driver/etc/ld.so.cache"] = (0o644, library_cache([
        f"/var/lib/nvidia/lib64/{name}.so.580.95.05" for name in ("libcuda", "libnvidia-ml", "libloop")]))
    host = machine.host(tmp_path)
    options = Options(driver_root="/opt/driver", dev_root="/", hook_path="/opt/driver/bin/nvidia-cdi-hook")
    with pytest.raises(CdiError, match="loop of links"):
        generate(host, machine.nvml(), options)
    with pytest.raises(CdiError, match="cannot be listed") as caught:
        generate(host, machine.nvml(), replace(options, strict=False))
    assert caught.value.code == "E_CDI_DRIVER_VERSION"
