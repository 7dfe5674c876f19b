# SPDX-License-Identifier: Apache-2.0
"""The emulated driver seen from user space: names, numbers and trees, the price of an attach, and how it fails."""

from __future__ import annotations

import re

import pytest

from nvrc_lab.run.probing import MOUNTS, probe, told

pytestmark = pytest.mark.qemu

PROC = "/proc/driver/nvidia"

# What NVIDIA's own open module 550.163.01 prints with no parameter given, on these same virtual functions.
PARAMS = """\
ResmanDebugLevel: 4294967295
RmLogonRC: 1
ModifyDeviceFiles: 1
DeviceFileUID: 0
DeviceFileGID: 0
DeviceFileMode: 438
InitializeSystemMemoryAllocations: 1
UsePageAttributeTable: 4294967295
EnableMSI: 1
EnablePCIeGen3: 0
MemoryPoolSize: 0
KMallocHeapMaxSize: 0
VMallocHeapMaxSize: 0
IgnoreMMIOCheck: 0
TCEBypassMode: 0
EnableStreamMemOPs: 0
EnableUserNUMAManagement: 1
NvLinkDisable: 0
RmProfilingAdminOnly: 1
PreserveVideoMemoryAllocations: 0
EnableS0ixPowerManagement: 0
S0ixPowerManagementVideoMemoryThreshold: 256
DynamicPowerManagement: 3
DynamicPowerManagementVideoMemoryThreshold: 200
RegisterPCIDriver: 1
EnablePCIERelaxedOrderingMode: 0
EnableResizableBar: 0
EnableGpuFirmware: 18
EnableGpuFirmwareLogs: 2
EnableDbgBreakpoint: 0
OpenRmEnableUnsupportedGpus: 1
DmaRemapPeerMmio: 1
ImexChannelCount: 2048
RegistryDwords: ""
RegistryDwordsPerDevice: ""
RmMsg: ""
GpuBlacklist: ""
TemporaryFilePath: ""
ExcludedGpus: ""
"""
IDENTITY = "model=NVIDIA%20H100%2080GB%20HBM3/vbios=96.00.74.00.01"


def gpu(place: str, number: int, *keys: str) -> str:
    return "/".join((place, "10de:2330/030200", f"uuid={number:032x}", IDENTITY, *keys))


MACHINE = ",".join((
    gpu("0000:40:00.0", 1, "attach_ms=200"),
    gpu("0000:41:00.0", 2, "attach_ms=150", "cc=1", "minor=5", "mig=1.0+2.0+2.1"),
    gpu("0000:42:00.0", 3, "faults=attach", "status=1705"),
    gpu("0000:43:00.0", 4, "attach_ms=100", "faults=nvlink"),
    gpu("0000:45:00.0", 5, "attach_ms=100", "cc=1", "faults=sticky"),
    gpu("0000:46:00.0", 6, "attach_ms=200"),
    "0000:47:00.0/10de:2330/040300",
    "0000:44:00.0/10de:22a3/068000",
))
SCRIPT = f"""{MOUNTS}
insmod /lab/nvidia_uvm.ko
insmod /lab/nvidia.ko NVreg_DeviceFileMode=0660 NVreg_Bogus=1
insmod /lab/nvidia_uvm.ko
cat /proc/devices
ls /dev
ls {PROC}
ls {PROC}/gpus
cat {PROC}/version
cat {PROC}/params
cat {PROC}/gpus/0000:41:00.0/information
ls {PROC}/capabilities
ls {PROC}/capabilities/gpu5/mig/gi2
cat {PROC}/capabilities/gpu5/mig/gi2/ci1/access
cat {PROC}/capabilities/mig/config
grep /proc/driver/nvidia-caps/mig-minors o
grep /proc/driver/nvidia-caps/mig-minors gpu5/gi2
cat /proc/driver/nvidia-caps/sys-minors
cat /proc/driver/nvidia-caps/nvlink-minors
ls /proc/driver/nvidia-nvswitch/devices
ls /sys/module/nvidia
link /sys/bus/pci/devices/0000:40:00.0/driver
link /sys/bus/pci/devices/0000:44:00.0/driver
link /sys/bus/pci/devices/0000:47:00.0/driver
node /dev/nvidia0 nvidia 0
node /dev/nvidia1 nvidia 1
node /dev/nvidia2 nvidia 2
node /dev/nvidia3 nvidia 3
node /dev/nvidia4 nvidia 4
node /dev/nvidia5 nvidia 5
node /dev/nvidia99 nvidia 99
node /dev/nvidiactl nvidiactl 255
node /dev/nvidia-uvm nvidia-uvm 0
open /dev/nvidiactl
open /dev/nvidia-uvm
open /dev/nvidia99
parallel /dev/nvidia0 /dev/nvidia4
open /dev/nvidia1
open /dev/nvidia2
hold /dev/nvidia5
open /dev/nvidia5
release /dev/nvidia5
open /dev/nvidia5
write /sys/bus/pci/devices/0000:41:00.0/reset 1
hold /dev/nvidia5
cat {PROC}/gpus/0000:41:00.0/information
open /dev/nvidia3
write /sys/bus/pci/devices/0000:45:00.0/reset 1
open /dev/nvidia3
write /proc/nvidia-lab shout hello
write /proc/nvidia-lab xid 0000:40:00.0 94 pid=7194, Contained: CE User Channel (0x9)
write /proc/lab-pci off 0000:41:00.0
sleep 400
open /dev/nvidia5
cat /proc/nvidia-lab
release /dev/nvidia5
rmmod nvidia_uvm
rmmod nvidia
kmsg NVRM
kmsg nvidia
kmsg BUG
kmsg WARNING
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return probe(MACHINE, SCRIPT)


SLIP = 0.9  # the driver waits by the kernel's timer, and the prober reads a clock that a busy host sets right now and then


def timed(lines: list[str], what: str) -> list[tuple[str, int]]:
    """Outcome and milliseconds of every probe of this kind."""
    pairs = [line.rsplit(" ms=", 1) for line in told(lines, what)]
    return [(words, int(ms)) for words, ms in pairs]


def test_uvm_needs_the_driver_and_both_load_and_unload(lines: list[str]) -> None:
    assert [words for words, _ in timed(lines, "insmod /lab/nvidia_uvm.ko")] == ["error ENOENT", "ok"]
    assert [words for words, _ in timed(lines, "insmod /lab/nvidia.ko")] == ["ok"]
    assert told(lines, "rmmod") == ["nvidia_uvm ok", "nvidia ok"]


def test_majors_have_the_drivers_names_and_no_node_appears(lines: list[str]) -> None:
    rows = [row.split() for row in told(lines, "cat /proc/devices") if "nvidia" in row]
    majors = {name: int(number) for number, name in rows}
    assert {name for name, number in majors.items() if number == 195} == {"nvidia", "nvidiactl"}
    assert {name for name, number in majors.items() if number != 195} == {
        "nvidia-uvm", "nvidia-nvswitch", "nvidia-nvlink", "nvidia-caps", "nvidia-caps-imex-channels"}
    assert "nvidia" not in told(lines, "ls /dev")[0]


def test_the_tree_of_the_driver(lines: list[str]) -> None:
    assert told(lines, f"ls {PROC}")[0].split() == [
        "capabilities", "gpus", "params", "patches", "registry", "suspend", "suspend_depth", "version", "warnings"]
    assert told(lines, f"ls {PROC}/gpus")[0].split() == [
        "0000:40:00.0", "0000:41:00.0", "0000:42:00.0", "0000:43:00.0", "0000:45:00.0", "0000:46:00.0"]
    assert told(lines, f"cat {PROC}/version")[0].startswith(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build")
    assert told(lines, "ls /proc/driver/nvidia-nvswitch/devices") == ["0000:44:00.0"]


def test_parameters_are_in_params_and_not_in_sysfs(lines: list[str]) -> None:
    assert told(lines, f"cat {PROC}/params") == PARAMS.replace("DeviceFileMode: 438", "DeviceFileMode: 432").splitlines()
    assert "parameters" not in told(lines, "ls /sys/module/nvidia")[0].split()
    assert "nvidia: unknown parameter 'NVreg_Bogus' ignored" in told(lines, "kmsg")


def test_information_knows_the_uuid_only_after_an_attach(lines: list[str]) -> None:
    rows = told(lines, f"cat {PROC}/gpus/0000:41:00.0/information")
    half = len(rows) // 2
    before, after = rows[:half], rows[half:]
    assert "GPU UUID: \t GPU-????????-????-????-????-????????????" in before
    assert "GPU UUID: \t GPU-00000000-0000-0000-0000-000000000002" in after
    for row in ("Model: \t\t NVIDIA H100 80GB HBM3", "Bus Location: \t 0000:41:00.0", "Device Minor: \t 5",
                "GPU Excluded:\t No"):
        assert row in before


def test_capabilities_exist_for_the_instances_and_minors_for_all(lines: list[str]) -> None:
    assert told(lines, f"ls {PROC}/capabilities:") == ["fabric-imex-mgmt gpu5 mig"]
    assert told(lines, f"ls {PROC}/capabilities/gpu5/mig/gi2") == ["access ci0 ci1"]
    minors = dict(row.split() for row in told(lines, "cat /proc/driver/nvidia-caps/mig-minors"))
    assert (minors["config"], minors["monitor"]) == ("1", "2")
    assert minors["gpu5/gi2/ci1/access"] == str(3 + 135 * 5 + 9 * 2 + 1 + 1)
    assert told(lines, f"cat {PROC}/capabilities/gpu5/mig/gi2/ci1/access")[:2] == [
        f"DeviceFileMinor: {minors['gpu5/gi2/ci1/access']}", "DeviceFileMode: 292"]
    assert "DeviceFileMode: 256" in told(lines, f"cat {PROC}/capabilities/mig/config")
    assert told(lines, "cat /proc/driver/nvidia-caps/sys-minors") == ["fabric-imex-mgmt 4323"]
    assert told(lines, "cat /proc/driver/nvidia-caps/nvlink-minors") == ["fabric-mgmt 0"]


def test_binding_follows_vendor_and_class(lines: list[str]) -> None:
    assert told(lines, "link /sys/bus/pci/devices/0000:40:00.0/driver")[0].endswith("/nvidia")
    assert told(lines, "link /sys/bus/pci/devices/0000:44:00.0/driver")[0].endswith("/nvidia-nvswitch")
    assert told(lines, "link /sys/bus/pci/devices/0000:47:00.0/driver") == ["error ENOENT"]


def test_control_nodes_open_at_once_and_an_unused_minor_does_not(lines: list[str]) -> None:
    assert timed(lines, "open /dev/nvidiactl")[0][0] == "ok"
    assert timed(lines, "open /dev/nvidia-uvm")[0][0] == "ok"
    assert timed(lines, "open /dev/nvidia99")[0][0] == "error ENODEV"


def test_gpus_attach_one_after_another_whoever_asks(lines: list[str]) -> None:
    words, ms = timed(lines, "parallel")[0]
    assert words == "ok=2 failed=0"
    assert ms >= 400 * SLIP


def test_a_failing_attach_has_the_drivers_signature(lines: list[str]) -> None:
    assert timed(lines, "open /dev/nvidia1")[0][0] == "error EIO"
    log = told(lines, "kmsg")
    at = log.index("NVRM: GPU 0000:42:00.0: RmInitAdapter failed! (0x22:0x56:1705)")
    assert log[at - 2:at + 2] == [
        "NVRM: osInitNvMapping: *** Cannot attach gpu",
        "NVRM: RmInitAdapter: osInitNvMapping failed, bailing out of RmInitAdapter",
        log[at], "NVRM: GPU 0000:42:00.0: rm_init_adapter failed, device minor number 1"]


def test_nvlink_of_a_single_gpu_must_be_off_to_attach(lines: list[str]) -> None:
    assert timed(lines, "open /dev/nvidia2")[0][0] == "error EIO"


def test_one_attach_per_reset_with_confidential_computing(lines: list[str]) -> None:
    held = timed(lines, "hold /dev/nvidia5")
    opened = timed(lines, "open /dev/nvidia5")
    assert [words for words, _ in held] == ["ok", "ok"]
    assert min(ms for _, ms in held) >= 150 * SLIP
    assert [words for words, _ in opened] == ["ok", "error EIO", "error EIO"]
    assert opened[0][1] < 100
    assert any("Disabling GSP offload -- GPU not supported" in line for line in told(lines, "kmsg"))


def test_a_wedged_gpu_stays_lost_after_a_reset(lines: list[str]) -> None:
    assert [words for words, _ in timed(lines, "open /dev/nvidia3")] == ["ok", "error EIO"]


def test_a_gpu_that_falls_off_the_bus_while_in_use_is_told_once(lines: list[str]) -> None:
    xids = [line for line in told(lines, "kmsg NVRM: Xid") if ": 79, " in f": {line}"]
    assert len(xids) == 1
    assert re.fullmatch(r"\(PCI:0000:41:00\): 79, .*GPU has fallen off the bus\.", xids[0])


def test_the_driver_says_what_it_is_told_to_say(lines: list[str]) -> None:
    assert told(lines, "write /proc/nvidia-lab") == ["error EINVAL", "ok"]
    assert "NVRM: Xid (PCI:0000:40:00): 94, pid=7194, Contained: CE User Channel (0x9)" in told(lines, "kmsg")


def test_the_driver_counts_who_came_first(lines: list[str]) -> None:
    row = next(line for line in told(lines, "cat /proc/nvidia-lab") if line.startswith("0000:41:00.0"))
    assert "opens=5 attaches=2 failures=1 first=prober" in row


def test_nothing_went_wrong_in_the_kernel(lines: list[str]) -> None:
    assert not told(lines, "kmsg BUG")
    assert not [line for line in told(lines, "kmsg") if line.startswith("WARNING:")]


# Three machines one after another: the functions of the last one are taken away, and those of the next one come.
NO_GPU = "0000:41:00.0/15b3:1021/020700"
OTHERS = f"""{MOUNTS}
insmod /lab/nvidia.ko
ls /proc/driver
kmsg NVRM
say probe-fails
rmmod lab_pci
insmod /lab/lab_pci.ko fn={gpu("0000:41:00.0", 1, "faults=probe")}
insmod /lab/nvidia.ko
ls /proc/driver
kmsg NVRM
say hangs
rmmod lab_pci
insmod /lab/lab_pci.ko fn={gpu("0000:40:00.0", 1, "cc=1", "faults=hang")}
insmod /lab/nvidia.ko
node /dev/nvidia0 nvidia 0
spawn /lab/prober /lab/hang
sleep 300
kill prober 9
sleep 200
write /proc/lab-pci set 0000:40:00.0 faults 0
open /dev/nvidia0
kmsg BUG
"""


@pytest.fixture(scope="module")
def others() -> dict[str, list[str]]:
    """What was said on each."""
    said, found, name = probe(NO_GPU, OTHERS, texts={"/lab/hang": "open /dev/nvidia0\n"}), dict[str, list[str]](), "no-gpu"
    for line in said:
        name = line.removeprefix("probe: say ").strip() if line.startswith("probe: say ") else name
        found.setdefault(name, []).append(line)
    return found


@pytest.mark.parametrize(("name", "last_words"), [
    ("no-gpu", "NVRM: No NVIDIA GPU found."), ("probe-fails", "NVRM: None of the NVIDIA devices were initialized."),
])
def test_without_a_usable_gpu_the_driver_does_not_load(others: dict[str, list[str]], name: str, last_words: str) -> None:
    assert [words for words, _ in timed(others[name], "insmod /lab/nvidia.ko")] == ["error ENODEV"]
    assert told(others[name], "kmsg NVRM")[-1] == last_words.removeprefix("NVRM: ")
    assert "nvidia" not in told(others[name], "ls /proc/driver")[0]


def test_a_hanging_attach_ends_with_its_process_and_spoils_a_confidential_gpu(others: dict[str, list[str]]) -> None:
    assert [words for words, _ in timed(others["hangs"], "insmod /lab/nvidia.ko")] == ["ok"]
    assert [words for words, _ in timed(others["hangs"], "open /dev/nvidia0")] == ["error EIO"]
    assert not told(others["hangs"], "kmsg BUG")
