# SPDX-License-Identifier: Apache-2.0
"""Nodes with the driver's numbers, modes and owners; what is right stays, what is wrong is refused, all at once."""

from __future__ import annotations

import stat
from errno import EADDRINUSE, EIO, EROFS
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.examples import times
from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.hardware.device_nodes import make_capability_nodes, make_nodes, read_majors
from nvrc.hardware.topology import PciFunction, Topology
from nvrc.machine.processes import LinuxProcesses
from nvrc.machine.system import Node
from nvrc.params.parse import parse
from nvrc.steps import device_nodes
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode

DEVICES = """\
Character devices:
  1 mem
  4 /dev/vc/0
195 nvidia
195 nvidia-modeset
195 nvidiactl
234 nvidia-caps-imex-channels
235 nvidia-caps
236 nvidia-uvm
237 nvidia-nvswitch
238 nvidia-nvlink

Block devices:
254 virtblk
7 nvidia-uvm
"""
PARAMS = "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 44\nDeviceFileMode: 432\n"
NVIDIA = "/proc/driver/nvidia"
GPUS = ("0000:41:00.0", "0000:c1:00.0")


def capability(system: FakeSystem, path: str, minor: int, mode: int) -> None:
    system.put(path, f"DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n")


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    system = bare_guest(str(tmp_path))
    system.put("/proc/devices", DEVICES)
    system.put(f"{NVIDIA}/params", PARAMS)
    for minor, bdf in ((5, GPUS[0]), (0, GPUS[1])):
        system.put(f"{NVIDIA}/gpus/{bdf}/information", f"Model: \t\t H100\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n")
    capability(system, f"{NVIDIA}/capabilities/mig/config", 1, 0o400)
    capability(system, f"{NVIDIA}/capabilities/mig/monitor", 2, 0o444)
    capability(system, f"{NVIDIA}/capabilities/gpu5/mig/gi2/access", 696, 0o444)
    capability(system, f"{NVIDIA}/capabilities/gpu5/mig/gi2/ci0/access", 697, 0o444)
    capability(system, "/proc/driver/nvidia-nvlink/capabilities/fabric-mgmt", 0, 0o400)
    system.put("/proc/driver/nvidia-nvlink/permissions", "DeviceFileMode: 438\n")
    system.put("/proc/driver/nvidia-nvswitch/permissions", "DeviceFileMode: 384\n")
    return system


def made(system: FakeSystem) -> list[str]:
    return [effect.removeprefix("node /dev/") for effect in system.effects if effect.startswith("node ")]


def test_every_node_with_the_drivers_numbers_and_modes(system: FakeSystem) -> None:
    paths = make_nodes(system, GPUS)
    assert made(system) == [
        "nvidiactl c 195:255 660 0:44",
        "nvidia-uvm c 236:0 660 0:44",
        "nvidia-uvm-tools c 236:1 660 0:44",
        "nvidia-nvlink c 238:0 666 0:0",
        "nvidia5 c 195:5 660 0:44",
        "nvidia0 c 195:0 660 0:44",
        "nvidia-caps/nvidia-cap696 c 235:696 444 0:0",
        "nvidia-caps/nvidia-cap697 c 235:697 444 0:0",
        "nvidia-caps/nvidia-cap1 c 235:1 400 0:0",
        "nvidia-caps/nvidia-cap2 c 235:2 444 0:0",
        "nvidia-caps/nvidia-cap0 c 235:0 400 0:0",
    ]
    assert paths == tuple("/dev/" + line.split()[0] for line in made(system))
    assert "mkdir /dev/nvidia-caps" in system.effects
    assert not any("open" in effect for effect in system.effects)


def test_switches_are_counted_in_bus_order(system: FakeSystem) -> None:
    for bdf in ("0000:06:00.0", "0000:05:00.0"):
        system.put(f"/proc/driver/nvidia-nvswitch/devices/{bdf}/information", "")
    make_nodes(system, ())
    assert [line for line in made(system) if "switch" in line] == [
        "nvidia-nvswitchctl c 237:255 600 0:0", "nvidia-nvswitch0 c 237:0 600 0:0", "nvidia-nvswitch1 c 237:1 600 0:0"]


def test_modeset_has_a_node_when_its_module_is_loaded_and_channel0_when_the_driver_made_it(system: FakeSystem) -> None:
    system.put("/sys/module/nvidia_modeset/initstate", "live\n")
    system.put(f"{NVIDIA}/params", PARAMS + "CreateImexChannel0: 1\n")
    make_nodes(system, ())
    assert made(system)[1] == "nvidia-modeset c 195:254 660 0:44"
    assert "nvidia-caps-imex-channels/channel0 c 234:0 660 0:44" in made(system)


def test_an_older_driver_has_one_name_for_its_major(system: FakeSystem) -> None:
    system.put("/proc/devices", "Character devices:\n195 nvidia-frontend\n235 nvidia-caps\n")
    make_nodes(system, GPUS)
    assert made(system)[:3] == ["nvidiactl c 195:255 660 0:44", "nvidia5 c 195:5 660 0:44", "nvidia0 c 195:0 660 0:44"]


def test_nodes_are_made_even_if_nvidias_own_programs_are_told_not_to(system: FakeSystem) -> None:
    system.put(f"{NVIDIA}/params", "ModifyDeviceFiles: 0\n")
    make_nodes(system, GPUS)
    assert made(system)[0] == "nvidiactl c 195:255 666 0:0"


def test_made_again_nothing_changes_but_mode_and_owner(system: FakeSystem) -> None:
    system.nodes["/dev/nvidia0"] = Node(stat.S_IFCHR | 0o600, 195, 0)
    make_nodes(system, GPUS)
    first = dict(system.nodes)
    assert system.nodes["/dev/nvidia0"] == Node(stat.S_IFCHR | 0o660, 195, 0, 0, 44)
    make_nodes(system, GPUS)
    assert system.nodes == first


def test_what_is_wrong_is_refused_all_at_once_before_anything_is_made(system: FakeSystem) -> None:
    system.nodes["/dev/nvidia-uvm"] = Node(stat.S_IFCHR | 0o666, 510, 0)
    system.put("/dev/nvidia0")
    system.make_link("/dev/nvidiactl", "/dev/null")
    system.effects.clear()
    with pytest.raises(NvrcError) as caught:
        make_nodes(system, GPUS)
    assert caught.value.what == (
        "/dev/nvidiactl exists and is not a character device; "
        "/dev/nvidia-uvm exists with numbers 510:0, the driver has 236:0; /dev/nvidia0 exists and is not a character device")
    assert caught.value.code == "E_DEVICE_NODES"
    assert system.effects == []


def test_capability_nodes_follow_a_new_mig_layout(system: FakeSystem) -> None:
    make_nodes(system, GPUS)
    capability(system, f"{NVIDIA}/capabilities/gpu0/mig/gi9/access", 84, 0o444)
    system.effects.clear()
    assert "/dev/nvidia-caps/nvidia-cap84" in make_capability_nodes(system)
    assert "nvidia-caps/nvidia-cap84 c 235:84 444 0:0" in made(system)
    assert not any(line.startswith("nvidia-uvm") for line in made(system))


@pytest.mark.parametrize(("path", "text", "what"), [
    ("/proc/devices", "Character devices:\n", "no number for /dev/nvidiactl: /proc/devices lists no character device "
     "nvidiactl or nvidia or nvidia-frontend"),
    ("/proc/devices", "Character devices:\n195 nvidiactl\n235 nvidia-caps\n", "no number for /dev/nvidia5: "),
    ("/proc/devices", DEVICES.replace("235 nvidia-caps\n", ""), "lists no character device nvidia-caps"),
    (f"{NVIDIA}/params", "DeviceFileMode: 0660x\n", "params: DeviceFileMode is '0660x', not 0 to 511"),
    (f"{NVIDIA}/params", "DeviceFileMode: 512\n", "DeviceFileMode is '512', not 0 to 511"),
    (f"{NVIDIA}/params", "DeviceFileUID: 4294967295\n", "DeviceFileUID is '4294967295', not 0 to 4294967294"),
    (f"{NVIDIA}/gpus/{GPUS[0]}/information", "Model: x\n", "information: Device Minor is '', not 0 to 253"),
    (f"{NVIDIA}/gpus/{GPUS[0]}/information", "Device Minor: 254\n", "Device Minor is '254', not 0 to 253"),
    (f"{NVIDIA}/gpus/{GPUS[0]}/information", "Device Minor: 0\n", f"{GPUS[1]} and {GPUS[0]} both have Device Minor 0"),
    (f"{NVIDIA}/capabilities/mig/config", "DeviceFileMode: 256\n", "mig/config: DeviceFileMinor is '', not 0 to 1048575"),
    (f"{NVIDIA}/capabilities/mig/config", "DeviceFileMinor: 1\nDeviceFileMode: -1\n", "DeviceFileMode is '-1'"),
])
def test_what_the_driver_does_not_say_is_an_error_with_its_place(system: FakeSystem, path: str, text: str,
                                                                 what: str) -> None:
    system.put(path, text)
    with pytest.raises(NvrcError) as caught:
        make_nodes(system, GPUS)
    assert what in caught.value.what
    assert caught.value.code == "E_DEVICE_NODES"
    assert made(system) == []


def test_a_gpu_that_the_driver_does_not_list_is_an_error(system: FakeSystem) -> None:
    with pytest.raises(NvrcError, match=r"gpus/0000:99:00\.0/information: No such file"):
        make_nodes(system, ("0000:99:00.0",))


def test_a_read_only_dev_is_told(system: FakeSystem) -> None:
    system.fail["node /dev/nvidia5"] = OSError(EROFS, "Read-only file system")
    with pytest.raises(NvrcError, match=r"cannot make /dev/nvidia5 \(195:5\): Read-only file system"):
        make_nodes(system, GPUS)


def test_folders_that_fail_or_never_end_are_errors(system: FakeSystem) -> None:
    class Failing(FakeSystem):
        def list_dir(self, path: str) -> tuple[str, ...]:
            if path.endswith(("/devices", "/gi2")):
                raise OSError(EIO, "Input/output error")
            return super().list_dir(path)

    with pytest.raises(NvrcError, match="Input/output error"):
        make_nodes(Failing(system.root), ())
    with pytest.raises(NvrcError, match="gi2: Input/output error"):
        make_capability_nodes(Failing(system.root))
    system.put(f"{NVIDIA}/capabilities" + "/a" * 10, "")
    with pytest.raises(NvrcError, match="nested deeper than 8"):
        make_capability_nodes(system)


@pytest.mark.long
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(
    [b"Character devices:\n", b"195 nvidia\n", b"Block devices:\n", b"99999999999999 nvidia\n", b"x nvidia\n", b"1 a b\n"]),
    max_size=6).map(b"".join)))
@settings(max_examples=times(5))
def test_any_bytes_are_numbers_or_nothing(data: bytes) -> None:
    class Reader(FakeSystem):
        def read(self, path: str, limit: int = 1 << 20) -> bytes:
            return data

    for number in read_majors(Reader("/nowhere")).values():
        assert 0 <= number < 10 ** 10


@pytest.mark.long
@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
@settings(max_examples=times(4))
def test_any_bytes_from_the_driver_make_right_nodes_or_an_error(params: bytes,
                                                                gpu: bytes, cap: bytes) -> None:
    answers = {"/proc/devices": DEVICES.encode(), f"{NVIDIA}/params": params,
               f"{NVIDIA}/gpus/{GPUS[0]}/information": b"Device Minor:" + gpu,
               f"{NVIDIA}/capabilities/x": b"DeviceFileMinor: 1\nDeviceFileMode:" + cap}

    class Reader(FakeSystem):
        def read(self, path: str, limit: int = 1 << 20) -> bytes:
            return answers.get(path, b"")

        def list_dir(self, path: str) -> tuple[str, ...]:
            if path == f"{NVIDIA}/capabilities":
                return ("x",)
            raise NotADirectoryError if path.endswith("/x") else FileNotFoundError

        def make_dir(self, path: str, mode: int = 0o755) -> None:
            pass

    system = Reader("/nowhere")
    try:
        make_nodes(system, GPUS[:1])
    except NvrcError as err:
        assert err.code == "E_DEVICE_NODES"
    for path, node in system.nodes.items():
        assert path.startswith("/dev/nvidia") and stat.S_ISCHR(node.mode) and node.minor < 1 << 20


def test_the_step_makes_the_nodes_of_the_gpus_on_the_bus(system: FakeSystem) -> None:
    functions = tuple(PciFunction(bdf=bdf, vendor=0x10DE, device=0x2330, pci_class=0x30200) for bdf in (*GPUS, "0000:99:00.0"))
    system.workers = LinuxProcesses()
    found = device_nodes.run(system, Facts(mode=Mode.GPU, topology=Topology(gpus=functions)))
    assert found.device_nodes is not None and "/dev/nvidia5" in found.device_nodes
    assert device_nodes.tell(found) == "11 nodes"
    assert device_nodes.run(system, Facts()).device_nodes is not None


def test_a_mode_without_nvidias_driver_has_no_nodes(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    found = device_nodes.run(system, Facts(mode=Mode.SERVICE_NVL5, modules=("ib_umad", "mlx5_ib")))
    assert (found.device_nodes, made(system)) == ((), [])
    with pytest.raises(NvrcError, match="/proc/devices: No such file"):
        device_nodes.run(system, Facts(mode=Mode.SERVICE_NVL4, modules=("nvidia",)))


def test_the_port_of_the_metrics_is_taken_before_a_daemon_could_serve_there(tmp_path: Path) -> None:
    """nvidia-persistenced may use the network: it had the port first, and served what it liked in the place of metrics."""
    system = bare_guest(str(tmp_path))
    facts = Facts(mode=Mode.SERVICE_NVL5, modules=("ib_umad", "mlx5_ib"), parameters=parse(b"nvrc.metrics=9400"))
    system.tcp = [8]
    assert device_nodes.run(system, facts).metrics_listener == 8
    assert system.effects == ["tcp 9400"]
    system.fail["tcp 9400"] = OSError(EADDRINUSE, "Address already in use")
    assert device_nodes.run(system, facts).metrics_listener == -1
