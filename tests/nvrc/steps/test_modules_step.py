# SPDX-License-Identifier: Apache-2.0
"""Which modules each mode gets, with which options, and the wait for the driver to list every GPU of the bus."""

from __future__ import annotations

from dataclasses import replace
from errno import ENODEV
from pathlib import Path

import pytest

from fakes.modules import TREE, add_module, loads, module_guest
from fakes.system import FakeSystem
from fakes.trouble import told
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import PciFunction, Topology
from nvrc.params.parse import parse
from nvrc.steps import lock_modules, modules
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.trouble import remark

GPUS = "/proc/driver/nvidia/gpus"


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    system = module_guest(str(tmp_path))
    for name in ("nvidia", "ib_umad", "mlx5_ib", "nvidia-modeset", "nvidia-drm", "nvidia-peermem"):
        add_module(system, f"{name}.ko")
    add_module(system, "nvidia-uvm.ko", "nvidia.ko")
    return system


def facts(mode: Mode, gpus: int = 0, cmdline: bytes = b"") -> Facts:
    functions = tuple(PciFunction(bdf=f"0000:4{n}:00.0", vendor=0x10DE, device=0x2330, pci_class=0x30200)
                      for n in range(gpus))
    return Facts(mode=mode, topology=Topology(gpus=functions), parameters=parse(cmdline))


def list_gpu(system: FakeSystem, number: int) -> None:
    system.put(f"{GPUS}/0000:4{number}:00.0/information", "")


@pytest.mark.parametrize(("mode", "gpus", "loaded"), [
    (Mode.CPU, 0, []),
    (Mode.GPU, 1, ["nvidia.ko NVreg_NvLinkDisable=1", "nvidia-uvm.ko"]),
    (Mode.GPU, 2, ["nvidia.ko", "nvidia-uvm.ko"]),
    (Mode.GPU_NVL4, 8, ["nvidia.ko", "nvidia-uvm.ko"]),
    (Mode.SERVICE_NVL4, 0, ["nvidia.ko"]),
    (Mode.GPU_NVL5, 8, ["nvidia.ko", "nvidia-uvm.ko", "ib_umad.ko", "mlx5_ib.ko"]),
    (Mode.SERVICE_NVL5, 0, ["ib_umad.ko", "mlx5_ib.ko"]),
])
def test_each_mode_gets_its_modules_and_no_other(system: FakeSystem, mode: Mode, gpus: int, loaded: list[str]) -> None:
    for number in range(gpus):
        list_gpu(system, number)
    found = modules.run(system, facts(mode, gpus))
    assert loads(system) == loaded
    assert modules.tell(found) == " ".join(name.split(".ko")[0] for name in loaded)
    assert found.warnings == ()


def test_options_for_uvm_come_from_the_command_line(system: FakeSystem) -> None:
    list_gpu(system, 0)
    modules.run(system, facts(Mode.GPU, 1, b"nvrc.uvm.options=uvm_a=1,uvm_b=2"))
    assert loads(system)[1] == "nvidia-uvm.ko uvm_a=1 uvm_b=2"


def test_words_of_the_kernels_own_kind_reach_the_module_in_quotes(system: FakeSystem) -> None:
    list_gpu(system, 0)
    modules.run(system, facts(Mode.GPU, 1, b'nvidia.NVreg_RegistryDwords="A=1; B=2" quiet'))
    assert loads(system)[0] == 'nvidia.ko NVreg_RegistryDwords="A=1; B=2" NVreg_NvLinkDisable=1'


def test_infiniband_that_is_built_in_without_a_trace_in_sys_module_is_there(tmp_path: Path) -> None:
    system = module_guest(str(tmp_path))
    with pytest.raises(NvrcError, match="module ib_umad is not in the kernel"):
        modules.run(system, facts(Mode.SERVICE_NVL5))
    system.put("/sys/class/infiniband_mad/abi_version", "5\n")
    system.put("/sys/bus/auxiliary/drivers/mlx5_ib.rdma/bind", "")
    modules.run(system, facts(Mode.SERVICE_NVL5))
    assert loads(system) == []


def test_the_extensions_driver_is_used_where_there_is_one(system: FakeSystem) -> None:
    root = "/run/kata-extensions/gpu"
    add_module(system, "x/nvidia.ko", tree=f"{root}{TREE}")
    add_module(system, "x/nvidia-uvm.ko", "x/nvidia.ko", tree=f"{root}{TREE}")
    list_gpu(system, 0)
    modules.run(system, replace(facts(Mode.GPU, 1), gpu_root=root))
    assert [effect.split()[1] for effect in system.effects if effect.startswith("load")] == [
        f"{root}{TREE}/x/nvidia.ko", f"{root}{TREE}/x/nvidia-uvm.ko"]


def test_what_the_agent_needs_is_loaded_where_it_is_a_module(system: FakeSystem) -> None:
    add_module(system, "overlay.ko")
    add_module(system, "failover.ko")
    add_module(system, "virtio_net.ko", "failover.ko")
    system.put("/proc/sys/kernel/modules_disabled", "0")
    found = lock_modules.run(system, facts(Mode.CPU))
    assert loads(system) == ["overlay.ko", "failover.ko", "virtio_net.ko"]
    assert found.agent_modules == ("overlay", "virtio_net")


def test_gpus_that_come_one_by_one_are_waited_for(system: FakeSystem) -> None:
    def later(number: int) -> None:
        system.clock += 45  # more than half the patience of 50 s with two GPUs
        list_gpu(system, number)

    system.happenings = [lambda: later(0), lambda: later(1)]
    modules.run(system, facts(Mode.GPU, 2))
    assert system.effects[-2:] == ["listen", "unlisten"]
    assert system.clock == 190


def test_gpus_that_stay_away_are_named_with_what_sysfs_knows(system: FakeSystem) -> None:
    list_gpu(system, 0)
    system.put("/sys/bus/pci/devices/0000:41:00.0/vendor", "0x10de\n")
    system.put("/sys/bus/pci/devices/0000:42:00.0/driver/bind", "")
    system.put("/sys/bus/pci/drivers/nvidia/0000:43:00.0/vendor", "")
    system.put("/sys/bus/pci/devices/0000:43:00.0/driver/bind", "")
    system.kernel_log = [b"3,1,2,-;NVRM: The NVIDIA probe routine failed for 1 device(s).\n"]
    with pytest.raises(NvrcError) as caught:
        modules.run(system, facts(Mode.GPU, 5, b"nvrc.timeout.modules=7 nvrc.timeout.per_gpu=2"))
    assert caught.value.code == "E_GPU_PROBE"
    assert caught.value.what == (
        "the driver lists 1 of 5 GPUs after 17 s without progress; missing: 0000:41:00.0 (its probe failed), "
        "0000:42:00.0 (bound to another driver), 0000:43:00.0 (bound to nvidia, not listed), "
        "0000:44:00.0 (gone from the bus)")
    assert caught.value.details == ("NVRM: The NVIDIA probe routine failed for 1 device(s).",)
    assert system.clock == 117


@pytest.mark.parametrize(("asked", "is_enough"), [("all", False), ("2", False), ("min:2", False), ("min:1", True),
                                                  ("min:0", True)])
def test_how_many_gpus_are_enough_is_the_command_lines_to_say(system: FakeSystem, asked: str, is_enough: bool) -> None:
    list_gpu(system, 1)
    given = facts(Mode.GPU, 2, f"nvrc.gpus={asked}".encode())
    if not is_enough:
        with pytest.raises(NvrcError, match="lists 1 of 2 GPUs"):
            modules.run(system, given)
        return
    assert told(modules.run(system, given).warnings) == (
        "E_GPU_PROBE the driver lists 1 of 2 GPUs after 50 s without progress; missing: 0000:40:00.0 (gone from the bus)",)


def test_a_driver_without_a_gpu_fails_at_once_in_its_own_words(system: FakeSystem) -> None:
    system.fail[f"load {TREE}/nvidia.ko"] = OSError(ENODEV, "No such device")
    system.kernel_log = [b"3,1,2,-;NVRM: No NVIDIA GPU found.\n"]
    with pytest.raises(NvrcError, match=r"found no device to drive .*NVRM: No NVIDIA GPU found") as caught:
        modules.run(system, facts(Mode.GPU, 1))
    assert caught.value.code == "E_MODULE_DEVICE"
    assert system.clock == 100


def test_what_went_past_in_silence_is_a_warning(system: FakeSystem) -> None:
    list_gpu(system, 0)
    system.put("/sys/module/nvidia/initstate", "live\n")
    found = modules.run(system, replace(facts(Mode.GPU, 1), warnings=(remark("before"),)))
    assert told(found.warnings) == (
        "before", "module nvidia was in the kernel before: NVreg_NvLinkDisable=1 was not given to it")


def test_the_steps_deadline_leaves_room_for_the_wait() -> None:
    assert modules.deadline_s(facts(Mode.GPU, 8)) == 120 + 30 + 80
    assert modules.deadline_s(replace(facts(Mode.CPU), topology=None)) == 150


def test_the_page_has_the_modules_of_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kernel-modules.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip("`") for line in rows for name in line.split(" | ")[0].removeprefix("| ").split(", ")}
    assert {row.module for row in modules.TABLE} <= listed


@pytest.mark.parametrize("mode", [Mode.CPU, Mode.SERVICE_NVL4])
def test_what_the_agent_needs_is_loaded_on_every_machine(system: FakeSystem, mode: Mode) -> None:
    add_module(system, "overlay.ko")
    add_module(system, "virtio_net.ko")
    system.put("/proc/sys/kernel/modules_disabled", "0")
    found = lock_modules.run(system, facts(mode))
    assert loads(system) == ["overlay.ko", "virtio_net.ko"]
    assert lock_modules.tell(found) == "overlay virtio_net"
    effects = [effect for effect in system.effects if "overlay.ko" in effect or "modules_disabled" in effect]
    assert "overlay.ko" in effects[0] and "modules_disabled" in effects[-1]


def test_configfs_is_mounted_once_a_module_has_brought_it(system: FakeSystem) -> None:
    where = add_module(system, "tsm.ko")
    system.put("/sys/devices/platform/sev-guest/modalias", "")
    system.put("/dev/sev-guest", "")
    system.put("/proc/filesystems", "nodev\tsysfs\n")
    system.put("/proc/self/mounts", "")
    system.put("/proc/sys/kernel/modules_disabled", "0")

    def arrive() -> None:
        system.put("/proc/filesystems", "nodev\tsysfs\nnodev\tconfigfs\n")
        system.put("/sys/kernel/config/x", "")

    system.on_load[where] = arrive
    lock_modules.run(system, facts(Mode.CPU))
    effects = [effect.split()[:3] for effect in system.effects if effect.startswith(("load", "mount", "write"))]
    assert effects == [["load", where], ["mount", "configfs", "/sys/kernel/config"],
                       ["write", "/proc/sys/kernel/modules_disabled", "1"]]


def test_a_confidential_guest_with_components_and_no_device_ends_the_boot(system: FakeSystem) -> None:
    system.put("/sys/devices/platform/sev-guest/modalias", "")
    system.put("/usr/local/bin/attestation-agent", "")
    with pytest.raises(NvrcError, match=r"confidential guest \(sev-snp\), and /dev/sev-guest is missing") as caught:
        lock_modules.run(system, facts(Mode.CPU))
    assert caught.value.code == "E_TEE_DRIVER"


def test_crypto_of_confidential_gpus_is_there_before_the_driver(system: FakeSystem) -> None:
    for name in ("gcm", "ecdh_generic"):
        add_module(system, f"{name}.ko")
    system.put("/sys/devices/platform/sev-guest/modalias", "")
    list_gpu(system, 0)
    modules.run(system, facts(Mode.GPU, 1))
    assert [name.split()[0] for name in loads(system)] == ["gcm.ko", "ecdh_generic.ko", "nvidia.ko", "nvidia-uvm.ko"]


def test_a_long_list_is_told_by_its_beginning(system: FakeSystem) -> None:
    found = replace(facts(Mode.CPU), agent_modules=tuple("abcdefgh"))
    assert lock_modules.tell(found) == "a b c d e f and 2 more"


def test_a_module_of_the_agents_that_is_refused_is_a_remark(system: FakeSystem) -> None:
    add_module(system, "overlay.ko")
    system.put("/etc/modprobe.d/a.conf", "install overlay /bin/true\n")
    system.put("/proc/sys/kernel/modules_disabled", "0")
    found = lock_modules.run(system, facts(Mode.CPU))
    assert system.text("/proc/sys/kernel/modules_disabled") == "1" and loads(system) == []
    assert [text for text in told(found.warnings) if "module overlay is to be loaded by a shell command" in text]
