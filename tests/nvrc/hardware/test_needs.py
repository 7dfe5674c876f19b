# SPDX-License-Identifier: Apache-2.0
"""Which needs a machine is seen to have, what is loaded for them, and a confidential guest without its device."""

from __future__ import annotations

from errno import ENODEV, EPERM
from pathlib import Path

import pytest

from fakes.modules import TREE, add_module, loads, module_guest
from fakes.system import FakeSystem, RecordingSystem
from nvrc.hardware.modules import Modules
from nvrc.hardware.needs import Guest, check_tee, is_recognised, load_needs
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.needs import NAMES, NEEDS, Need, modules_of

BY_NAME = {need.name: need for need in NEEDS}
TDX_CPU = "processor\t: 0\nflags\t\t: fpu sse2 tdx_guest\nbugs\t\t:\n"
PLAIN = Guest()
SNP_PATH = "/sys/devices/platform/sev-guest/modalias"


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    system = module_guest(str(tmp_path))
    system.put("/proc/cmdline", "quiet")
    system.put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse2\n")
    return system


def give(system: FakeSystem, *needs: str) -> None:
    """All modules of some needs, as files."""
    for name in dict.fromkeys(name for need in needs for name in all_of(need)):
        add_module(system, f"{name}.ko")


def load(system: FakeSystem, guest: Guest = PLAIN, *, before_driver: bool = False) -> list[str]:
    load_needs(system, Modules(system), guest, before_driver=before_driver)
    return [name.removesuffix(".ko") for name in loads(system)]


def all_of(name: str) -> list[str]:
    return [module for need in NEEDS if need.name == name for module in (*need.where_there, *need.modules)]


def put_virtio(system: FakeSystem, *kinds: int) -> None:
    """A bus with such devices; with none it is there all the same."""
    system.put("/sys/bus/virtio/drivers_probe", "")
    (Path(system.root) / "sys/bus/virtio/devices").mkdir(exist_ok=True)
    for number, kind in enumerate(kinds):
        system.put(f"/sys/bus/virtio/devices/virtio{number}/device", f"0x{kind:04x}\n")


RECOGNISED = [
    pytest.param("agent", {}, Guest(), id="always"),
    pytest.param("xfs", {}, Guest(), id="xfs"),
    pytest.param("late-network", {}, Guest(), id="a-network-that-comes-later"),
    pytest.param("storage", {}, Guest(), id="disks-come-later-whatever-the-bus-shows"),
    pytest.param("netfilter", {}, Guest(), id="netfilter"),
    pytest.param("netfilter-legacy", {}, Guest(), id="netfilter-legacy"),
    pytest.param("networks", {}, Guest(), id="networks"),
    pytest.param("sev-snp", {SNP_PATH: ""}, Guest(), id="snp-platform-device"),
    pytest.param("sev-snp", {"/sys/devices/system/cpu/sev/vmpl": "0"}, Guest(), id="snp-vmpl"),
    pytest.param("tdx", {"/proc/cpuinfo": TDX_CPU}, Guest(), id="tdx-flag"),
    pytest.param("encrypted-storage", {"/usr/local/bin/confidential-data-hub": ""}, Guest(), id="guest-component"),
    pytest.param("encrypted-storage", {}, Guest(extensions=("gpu", "coco")), id="extension"),
    pytest.param("encrypted-storage", {"/proc/cmdline": "a agent.secure_storage_integrity=true"}, Guest(), id="word"),
    pytest.param("rdma", {}, Guest(has_nics=True), id="a-nic-on-the-bus"),
]


def test_every_row_is_tried() -> None:
    """The one that comes before the driver has a test of its own."""
    assert {row.values[0] for row in RECOGNISED} | {"gpu-crypto"} == set(NAMES)


@pytest.mark.parametrize(("need", "put", "guest"), RECOGNISED)
def test_a_need_that_is_recognised_is_loaded(system: FakeSystem, need: str, put: dict[str, str], guest: Guest) -> None:
    give(system, need)
    for path, text in put.items():
        system.put(path, text)
    assert load(system, guest) == all_of(need)


@pytest.mark.parametrize(("kinds", "wanted"), [
    pytest.param((), ["overlay"], id="no-device"),
    pytest.param((2, 8), ["overlay"], id="disks"),
    pytest.param((2, 1), ["overlay", "virtio_net"], id="network"),
    pytest.param((19, 4), ["overlay", "vmw_vsock_virtio_transport"], id="vsock"),
    pytest.param((0x13, 0x1), ["overlay", "virtio_net", "vmw_vsock_virtio_transport"], id="both"),
])
def test_the_agent_gets_the_modules_of_the_devices_that_are_attached(system: FakeSystem, kinds: tuple[int, ...],
                                                                     wanted: list[str]) -> None:
    give(system, "agent")
    system.put(f"{TREE}/nvrc.serves", "agent\n")
    put_virtio(system, *kinds)
    assert load(system) == wanted


@pytest.mark.parametrize(("kinds", "wanted"), [
    pytest.param((1, 2), [], id="no-controller"),
    pytest.param((2, 8), ["virtio_scsi", "sd_mod"], id="controller"),
])
def test_disks_of_a_scsi_controller_have_their_modules_where_it_is_attached(system: FakeSystem, kinds: tuple[int, ...],
                                                                            wanted: list[str]) -> None:
    give(system, "storage")
    system.put(f"{TREE}/nvrc.serves", "storage\n")
    put_virtio(system, *kinds)
    assert load(system) == ["virtio_blk", "erofs", "dm_verity", "loop", *wanted]


def test_a_network_that_comes_later_has_its_module_where_the_image_serves_it(system: FakeSystem) -> None:
    give(system, "agent", "late-network")
    system.put(f"{TREE}/nvrc.serves", "agent\nlate-network\n")
    put_virtio(system)
    assert load(system) == ["overlay", "virtio_net"]


@pytest.mark.parametrize("need", ["sev-snp", "tdx", "encrypted-storage", "rdma", "gpu-crypto"])
def test_a_need_that_the_machine_does_not_have_costs_nothing(system: FakeSystem, need: str) -> None:
    give(system, need)
    nothing = Guest(extensions=("gpu",), has_gpus=True)
    assert load(system, nothing) == load(system, nothing, before_driver=True) == []


def test_what_the_driver_asks_for_during_the_attach_comes_before_the_driver(system: FakeSystem) -> None:
    give(system, "gpu-crypto", "agent")
    system.put("/proc/cpuinfo", TDX_CPU)
    assert load(system, before_driver=True) == []
    assert load(system, Guest(has_gpus=True), before_driver=True) == all_of("gpu-crypto")
    assert load(system, Guest(has_gpus=True)) == [*all_of("gpu-crypto"), *all_of("agent")]


def test_only_what_the_image_serves_counts_where_it_says_so(system: FakeSystem) -> None:
    give(system, "agent", "storage")
    system.put(f"{TREE}/nvrc.serves", "agent\nfuture\n")
    modules = Modules(system)
    assert load_needs(system, modules, Guest(), before_driver=False) == tuple(all_of("agent"))
    assert modules.remarks == [
        f"{TREE}/nvrc.serves: there is no need called 'future'; image and init are of different releases"]


@pytest.mark.long
def test_modules_that_are_built_in_are_left_alone_and_nothing_is_looked_for(system: FakeSystem) -> None:
    system.put(f"{TREE}/modules.builtin", "kernel/sev-guest.ko\nkernel/erofs.ko\n")
    give(system, "sev-snp", "storage")
    system.put("/sys/module/loop/parameters/max_loop", "8")
    assert load(system) == [name for name in all_of("storage") if name not in ("erofs", "loop")]


def test_a_driver_without_its_device_is_silence_and_any_other_refusal_a_remark(system: FakeSystem) -> None:
    give(system, "storage")
    system.fail[f"load {TREE}/erofs.ko"] = OSError(ENODEV, "No such device")
    system.fail[f"load {TREE}/loop.ko"] = OSError(EPERM, "Operation not permitted")
    modules = Modules(system)
    loaded = load_needs(system, modules, Guest(), before_driver=False)
    assert loaded == ("virtio_blk", "dm_verity", "virtio_scsi", "sd_mod")
    assert [remark.split(":")[0] for remark in modules.remarks] == ["module loop may not be loaded"]


def test_the_flags_are_those_of_the_first_processor_of_a_large_machine(system: FakeSystem) -> None:
    system.put("/proc/cpuinfo", TDX_CPU + "x" * (4 << 20))
    assert is_recognised(system, BY_NAME["tdx"].signs, Guest())
    system.put("/proc/cpuinfo", "flags\t\t: not_tdx_guest tdx_guest_too\n")
    assert not is_recognised(system, BY_NAME["tdx"].signs, Guest())


def test_a_machine_without_cpuinfo_has_no_flags(system: FakeSystem) -> None:
    (Path(system.root) / "proc/cpuinfo").unlink()
    assert not is_recognised(system, BY_NAME["tdx"].signs, Guest())


def test_what_is_read_of_the_machine_is_bounded(system: FakeSystem) -> None:
    """The host makes both: a processor's first lines are within 8 KiB, and a device's kind is a number on a line."""
    recording = RecordingSystem(system.root)
    put_virtio(recording, 1)
    give(recording, "agent", "tdx")
    load_needs(recording, Modules(recording), PLAIN, before_driver=False)
    assert (recording.limits["cpuinfo"], recording.limits["device"]) == (8192, 16)


def test_a_strange_name_of_a_need_is_quoted_as_far_as_a_line_goes(system: FakeSystem) -> None:
    system.put(f"{TREE}/nvrc.serves", "x" * 90)
    modules = Modules(system)
    load_needs(system, modules, PLAIN, before_driver=False)
    assert f"there is no need called '{'x' * 40}';" in modules.remarks[0]


@pytest.mark.parametrize(("put", "told"), [
    pytest.param({}, "", id="no-confidential-guest"),
    pytest.param({"/proc/cpuinfo": TDX_CPU, "/dev/tdx_guest": ""}, "", id="tdx-with-its-device"),
    pytest.param({SNP_PATH: "", "/dev/sev-guest": ""}, "", id="snp-with-its-device"),
    pytest.param({"/proc/cpuinfo": TDX_CPU},
                 "this is a confidential guest (tdx), and /dev/tdx_guest is missing: the image has no module tdx_guest "
                 "for this kernel, or the kernel refused it", id="no-module"),
    pytest.param({SNP_PATH: "", "/sys/module/sev_guest/initstate": "live\n"},
                 "this is a confidential guest (sev-snp), and /dev/sev-guest is missing: its driver is in the kernel "
                 "and made none", id="no-device"),
])
@pytest.mark.parametrize("attests", [False, True], ids=["plain", "with-guest-components"])
def test_a_confidential_guest_without_its_device(system: FakeSystem, put: dict[str, str], told: str,
                                                 attests: bool) -> None:
    for path, text in put.items():
        system.put(path, text)
    guest = Guest(extensions=("coco",) if attests else ())
    if told and attests:
        with pytest.raises(NvrcError) as caught:
            check_tee(system, Modules(system), guest)
        assert (caught.value.code, caught.value.what) == ("E_TEE_DRIVER", told)
        return
    warned = check_tee(system, Modules(system), guest)
    assert [(one.code, one.what) for one in warned] == ([("E_TEE_DRIVER", told)] if told else [])
    assert all(one.path.startswith("/dev/") for one in warned)


def test_the_table_is_sound() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [need.name for need in NEEDS if need.device] == ["sev-snp", "tdx"]
    for need in NEEDS:
        assert isinstance(need, Need) and need.signs and need.why and need.builtin
        assert not any("-" in name for name in (*need.modules, *need.where_there)), need.name
    assert modules_of("TSM_REPORTS") == ("tsm", "tsm_report")
    assert modules_of("X86_PAT") == ()
