# SPDX-License-Identifier: Apache-2.0
"""From command line to device nodes with one file of /sys, /proc or the image in an enemy's hands, or in a broken kernel's.

Whatever it says: facts about the machine, or an error with a code. Never another exception, never a node that is none
of NVIDIA's, never a wait without an end.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import EACCES, EIO, ELOOP, ENODEV, ENOENT, ENOTDIR, ETIMEDOUT
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.examples import times
from fakes.modules import RELEASE, TREE, add_module, module_guest
from fakes.system import FakeSystem
from fakes.trouble import told
from nvrc.engine.facts import Facts
from nvrc.hardware.device_nodes import make_nodes
from nvrc.steps import modules, parameters, topology
from nvrc.vocabulary.errors import NvrcError, find_code

BDFS = ("0000:41:00.0", "0000:c1:00.0")
DEVICES = ("Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n235 nvidia-caps\n236 nvidia-uvm\n237 nvidia-nvswitch\n"
           "238 nvidia-nvlink\n\nBlock devices:\n254 virtblk\n")
PARAMS = "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 44\nDeviceFileMode: 432\n"


def fill(system: FakeSystem) -> None:
    for name in ("nvidia.ko", "overlay.ko"):
        add_module(system, name)
    add_module(system, "nvidia-uvm.ko", "nvidia.ko")
    system.put("/proc/cmdline", "quiet nvrc.gpus=all nvidia.NVreg_A=1\n")
    system.put("/proc/devices", DEVICES)
    system.put("/proc/driver/nvidia/params", PARAMS)
    system.put("/proc/driver/nvidia-nvlink/permissions", "DeviceFileMode: 438\n")
    system.put("/proc/driver/nvidia-nvlink/capabilities/fabric-mgmt", "DeviceFileMinor: 0\nDeviceFileMode: 256\n")
    system.put("/proc/driver/nvidia/capabilities/mig/config", "DeviceFileMinor: 1\nDeviceFileMode: 256\n")
    system.put("/etc/modprobe.d/nvidia.conf", "options nvidia NVreg_B=2\nsoftdep nvidia pre: overlay\n")
    for minor, bdf in enumerate(BDFS):
        folder = f"/sys/bus/pci/devices/{bdf}"
        for name, text in (("vendor", "0x10de\n"), ("device", "0x2330\n"), ("class", "0x030200\n")):
            system.put(f"{folder}/{name}", text)
        system.put(f"/proc/driver/nvidia/gpus/{bdf}/information", f"Model: \t H100\nDevice Minor: \t {minor}\n")
    for name, text in (("vendor", "0x15b3\n"), ("device", "0x1021\n"), ("class", "0x020000\n"), ("vpd", "ConnectX-7")):
        system.put(f"/sys/bus/pci/devices/0000:70:00.0/{name}", text)


@dataclass
class Hostile(FakeSystem):
    """Answers for one path, a file or a folder, are what a test says. `asked` is what was read and listed."""

    victim: str = ""
    says: bytes | OSError = b""
    names: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        self.asked.append(path)
        if path != self.victim:
            return super().read(path, limit)
        if isinstance(self.says, OSError):
            raise self.says
        return self.says[:limit]

    def list_dir(self, path: str) -> tuple[str, ...]:
        self.asked.append(path)
        if path != self.victim:
            return super().list_dir(path)
        if isinstance(self.says, OSError):
            raise self.says
        return self.names


def bring_up(system: FakeSystem) -> Facts:
    """The steps that read what kernel and driver say, without the executor that would catch what they raise."""
    facts = parameters.run(system, Facts(gpu_root=""))
    facts = modules.run(system, topology.run(system, facts))
    gpus = tuple(gpu.bdf for gpu in facts.topology.gpus) if facts.topology else ()
    make_nodes(system, gpus)
    return facts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("guest")
    fill(module_guest(str(folder)))
    yield str(folder)


def test_the_machine_comes_up_when_nobody_lies(root: str) -> None:
    system = Hostile(root)
    facts = bring_up(system)
    assert facts.modules == ("nvidia", "nvidia-uvm")
    assert told(facts.warnings) == ("nvidia.NVreg_A: goes to the driver's module as it is",)
    assert {"/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-caps/nvidia-cap1"} <= set(system.nodes)


ERRORS = st.sampled_from([OSError(number, "told by a test") for number in (EACCES, EIO, ELOOP, ENODEV, ENOENT, ENOTDIR, ETIMEDOUT)])
LINES = st.sampled_from([
    b"", b"\0" * 64, b"\xff\xfe\n", b"0x10de\n", b"0x10de", b"0x", b"-1\n", b"99999999999999999999\n", b"0x030200\n",
    b"Device Minor: 255\n", b"Device Minor: -1\n", b"Device Minor: 1\nDevice Minor: 0\n", b"DeviceFileMode: 9999999999\n",
    b"DeviceFileMinor: 1048576\nDeviceFileMode: 292\n", b"195 nvidia\n", b"Character devices:\n195 nvidia\n0 nvidiactl\n",
    b"Character devices:\n4294967295 nvidia\n4294967295 nvidiactl\n", b"nvidia.ko: nvidia-uvm.ko\nnvidia-uvm.ko: nvidia.ko\n",
    b"../../../etc/passwd.ko:\n", b"kernel/nvidia.ko: kernel/nowhere.ko\n", b"install nvidia /bin/sh -c evil\n",
    b"options nvidia \x00\n", b"softdep nvidia pre: nvidia\n", b"quiet nvrc.gpus=\n", b"nvrc.gpus=0 nvrc.gpus=1\n", b'"' * 99,
    b"SW_MNG" * 20000, b"live\n", b"coming\n",
])
NAMES = st.lists(st.sampled_from([
    *BDFS, "0000:00:00.0", "..", ".", "a b", "nvidia\n", "\udcff", "gi1", "mig", "x" * 255, RELEASE, "0000:41:00.8"]), max_size=4)


@pytest.mark.long
@settings(max_examples=times(7), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_one_file_or_folder_that_lies(root: str, data: st.DataObject) -> None:
    honest = Hostile(root)
    bring_up(honest)
    victim = data.draw(st.sampled_from(sorted(set(honest.asked))), label="victim")
    says = data.draw(ERRORS | LINES | st.binary(max_size=200), label="says")
    system = Hostile(root, victim=victim, says=says, names=tuple(data.draw(NAMES, label="names")))
    try:
        bring_up(system)
    except NvrcError as err:
        assert find_code(err.code) is not None
        assert err.what and err.hint
    for path, node in system.nodes.items():
        assert path.startswith("/dev/nvidia"), path
        assert ".." not in path.split("/")
        assert stat.S_ISCHR(node.mode) and 0 <= node.minor < 1 << 20 and 0 <= node.major < 1 << 32
    assert system.clock < 100.0 + 300, "no longer than a patience or two"
    assert all(not effect.startswith("load ") or f"{TREE}/" in effect or RELEASE in effect for effect in system.effects)
