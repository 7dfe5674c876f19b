# SPDX-License-Identifier: Apache-2.0
"""Clocks, power and MIG on the stand-in library: what is set, what is refused, what the message says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.gpu_guest import GpuGuest, MakeGuest
from fakes.trouble import told
from nvrc.engine.facts import FailedWithFacts
from nvrc.nvml.answers import Applied, MigMade
from nvrc.report import findings
from nvrc.report.findings import MigRecord, SettingRecord
from nvrc.steps import gpu_settings
from nvrc.vocabulary.errors import NvrcError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

UUID = "GPU-00000000-0000-4000-8000-00000000000"  # of the stand-in, without the number at its end


def failure(guest: GpuGuest) -> NvrcError:
    with pytest.raises(NvrcError) as caught:
        guest.boot(1)
    return caught.value


def state(guest: GpuGuest) -> str:
    return (guest.mock.folder / "state.conf").read_text()


def test_settings_are_made_on_every_gpu_in_the_order_of_the_reference(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.pl=500 nvrc.smi.lgc=1500 nvrc.smi.lmc=2619")
    facts = guest.boot(1)
    assert facts.gpu_settings == tuple(
        Applied(gpu, *rest, "") for gpu in (0, 1)
        for rest in (("memory_clock_mhz", 2619, 2619), ("gpu_clock_mhz", 1500, 1500), ("power_limit_w", 500, 500)))
    assert gpu_settings.tell(facts) == "2 GPUs, nvrc.smi.lmc=2619, nvrc.smi.lgc=1500, nvrc.smi.pl=500"
    assert facts.warnings == ()
    assert findings.record_settings(facts)[2:4] == (
        SettingRecord(gpu="0000:1a:00.0", name="nvrc.smi.pl", asked=500, got=500),
        SettingRecord(gpu="0000:1b:00.0", name="nvrc.smi.lmc", asked=2619, got=2619))
    calls = [call.arguments for call in guest.mock.calls() if "Locked" in call.name or "SetPower" in call.name]
    assert calls == ["gpu=0 min=2619 max=2619", "gpu=0 min=1500 max=1500", "gpu=0 milliwatts=500000",
                     "gpu=1 min=2619 max=2619", "gpu=1 min=1500 max=1500", "gpu=1 milliwatts=500000"]


def test_a_clock_between_two_that_the_gpu_has_is_told(gpu_guest: MakeGuest) -> None:
    facts = gpu_guest("nvrc.smi.lgc=1501").boot(1)
    assert told(facts.warnings) == ("nvrc.smi.lgc=1501: accepted; the GPU reads 1500 MHz on GPU 0, 1",)


@pytest.mark.parametrize(("fault", "tolerated"), [("3", True), ("13", True), ("4", False)])
def test_a_clock_that_cannot_be_read_back(gpu_guest: MakeGuest, fault: str, tolerated: bool) -> None:
    guest = gpu_guest("nvrc.smi.lmc=2619", text=f"fail nvmlDeviceGetClockInfo {fault}")
    if tolerated:
        assert [row.got for row in guest.boot(1).gpu_settings or ()] == [-1, -1]
    else:
        assert "run as root" in failure(guest).what


@pytest.mark.parametrize(("cmdline", "keys", "words"), [
    ("nvrc.smi.lgc=9000", "", f"GPU 0 0000:1a:00.0 ({UUID}0): nvrc.smi.lgc=9000: nvmlDeviceSetGpuLockedClocks returned "
                              "NVML_ERROR_INVALID_ARGUMENT (2): the GPU has 345 to 1980 MHz; GPU 1 "),
    ("nvrc.smi.lmc=100", "", "the GPU has 1593 to 2619 MHz"),
    ("nvrc.smi.pl=900", "power-mw=200500,700900", "nvrc.smi.pl=900: 900 W is not within the 201 to 700 W of this GPU"),
    ("nvrc.smi.pl=200", "power-mw=200500,700900", "not within the 201 to 700 W"),
])
def test_values_that_no_gpu_takes(gpu_guest: MakeGuest, cmdline: str, keys: str, words: str) -> None:
    caught = failure(gpu_guest(cmdline, keys=keys))
    assert caught.code == "E_GPU_SETTING"
    assert words in caught.what
    assert caught.what.count(f"GPU 1 0000:1b:00.0 ({UUID}1): ") == 1


def test_one_gpu_that_refuses_does_not_keep_the_others_from_theirs(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.pl=500", gpus=3, text="fail nvmlDeviceSetPowerManagementLimit gpu=1 4")
    assert failure(guest).what == (f"GPU 1 0000:1b:00.0 ({UUID}1): nvrc.smi.pl=500: nvmlDeviceSetPowerManagementLimit returned "
                                   "NVML_ERROR_NO_PERMISSION (4); run as root, and check the owner and mode of "
                                   "/dev/nvidiactl and /dev/nvidia*")
    assert [call.outcome for call in guest.mock.calls() if "SetPower" in call.name] == ["0", "4", "0"]


def test_what_was_asked_and_got_is_known_after_a_failure_too(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.pl=500", gpus=3, text="fail nvmlDeviceSetPowerManagementLimit gpu=1 4")
    with pytest.raises(FailedWithFacts) as caught:
        guest.boot()
    assert [(row.gpu, row.asked, row.got) for row in findings.record_settings(caught.value.facts)] == [
        ("0000:1a:00.0", 500, 500), ("0000:1b:00.0", 500, None), ("0000:1c:00.0", 500, 500)]
    at = caught.value.trouble
    assert (at.gpu, at.uuid) == ("0000:1b:00.0", (caught.value.facts.gpus or ())[1].uuid) and at.uuid in at.what


def test_a_power_limit_that_reads_back_differently(gpu_guest: MakeGuest) -> None:
    """The stand-in keeps state in a file, so another client can be played by hand: the set call is made to do nothing."""
    guest = gpu_guest("nvrc.smi.pl=500", gpus=1, text="fail nvmlDeviceSetPowerManagementLimit 0")
    assert "set to 500 W, but nvmlDeviceGetPowerManagementLimit says" in failure(guest).what


LAYOUTS = (
    ("all:1g.10gb*7", ("1g.10gb",) * 7),
    ("all:3g.40gb,4g.40gb", ("3g.40gb", "4g.40gb")),
    ("all:2g.20gb*2,1g.10gb+me", ("2g.20gb", "2g.20gb", "1g.10gb+me")),
    ("all:7g.80gb", ("7g.80gb",)),
)


@pytest.mark.parametrize(("layout", "profiles"), LAYOUTS)
def test_layouts_are_made_whatever_was_there(gpu_guest: MakeGuest, layout: str, profiles: tuple[str, ...]) -> None:
    guest = gpu_guest(f"nvrc.mig={layout}", keys="mig-gb=80 mig=on", text="mig gpu=1 gi=9 ci=0 profile=1g.10gb")
    facts = guest.boot(1)
    assert facts.mig == (MigMade(0, profiles, True, ""), MigMade(1, profiles, True, ""))
    assert gpu_settings.tell(facts) == "2 GPUs, MIG on 2"
    assert findings.record_mig(facts)[1] == MigRecord(gpu="0000:1b:00.0", profiles=profiles, changed=True)


@pytest.mark.parametrize("layout", [row[0] for row in LAYOUTS])
def test_a_layout_that_is_there_already_is_left_alone(gpu_guest: MakeGuest, layout: str) -> None:
    guest = gpu_guest(f"nvrc.mig={layout}", keys="mig-gb=80")
    guest.boot(1)
    guest.end()
    before = len(guest.mock.calls())
    guest.start()
    facts = guest.boot(1)
    assert [row.changed for row in facts.mig or ()] == [False, False]
    again = {call.name for call in guest.mock.calls()[before:]}
    assert not any(word in name for name in again for word in ("Create", "Destroy", "SetMigMode"))


def test_switching_off_removes_what_is_there(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.mig=all:off", keys="mig=on", text="mig gpu=0 gi=9 ci=0 profile=1g.10gb")
    facts = guest.boot()
    assert [row.changed for row in facts.mig or ()] == [True, True]
    assert facts.cdi is not None and facts.cdi.devices == 3
    assert gpu_settings.tell(facts) == "2 GPUs"


def test_off_where_it_is_off_or_where_there_is_no_mig(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.mig=all:off", gpus=1, text="gpu 1 bus=0000:1b:00.0 mig=unsupported", on_bus=2)
    assert [row.changed for row in guest.boot(1).mig or ()] == [False, False]


def test_only_the_gpus_that_a_rule_names(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.mig=1:7g.80gb", keys="mig-gb=80")
    assert guest.boot(1).mig == (MigMade(1, ("7g.80gb",), True, ""),)


def test_mig_devices_are_in_the_document_and_their_nodes_are_made(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.mig=0:3g.40gb*2", keys="mig-gb=80")
    access = "/proc/driver/nvidia/capabilities/gpu1/mig/gi1/access"
    guest.lose_node("/dev/nvidia-caps/nvidia-cap147", described=True)
    guest.system.put(access, "DeviceFileMinor: 147\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    facts = guest.boot()
    assert facts.cdi is not None and facts.cdi.devices == 4  # 0:0, 0:1, 1 and all
    assert "node /dev/nvidia-caps/nvidia-cap147 c 511:147 444 0:0" in guest.system.effects


def test_the_driver_is_told_of_every_instance(gpu_guest: MakeGuest, tmp_path: Path) -> None:
    door = tmp_path / "door"
    guest = gpu_guest("nvrc.mig=1:3g.40gb*2", keys="mig-gb=80", text=f"door {door}")
    guest.boot(1)
    assert door.read_text() == "mig 0000:1b:00.0 1.0 2.0", "the last of the lines, each written over the one before"


def test_a_layout_that_was_there_makes_no_nodes(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.mig=all:off")
    guest.boot(1)
    assert not [effect for effect in guest.system.effects if effect.startswith(("node", "mkdir"))]


@pytest.mark.parametrize(("layout", "described", "words"), [
    ("0:3g.20gb", "", f"GPU 0 0000:1a:00.0 ({UUID}0): no profile 3g.20gb; this GPU has 1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb, "),
    ("0:1g.10gb,7g.80gb", "", "these do not fit side by side; memory slices where they can begin: 1g.10gb at 0, 1, 2, 3, "
                              "4, 5, 6; 7g.80gb at 0"),
    ("0:1g.10gb", "mig=unsupported", "this GPU has no MIG"),
    ("0:1g.10gb", "mig-needs-reset=on", "MIG on is pending: nvmlDeviceSetMigMode requires a reset of the GPU first "
                                        "(NVML_ERROR_RESET_REQUIRED)"),
    ("0:off", "mig=on mig-needs-reset=on", "MIG off is pending"),
    ("2:off;0:7g.80gb", "", "nvrc.mig names a GPU that does not exist: 2:off; the numbers are 0 to 1"),
])
def test_layouts_that_cannot_be(gpu_guest: MakeGuest, layout: str, described: str, words: str) -> None:
    caught = failure(gpu_guest(f"nvrc.mig={layout}", keys=f"mig-gb=80 {described}"))
    assert caught.code == "E_MIG"
    assert words in caught.what


@pytest.mark.parametrize(("fault", "words"), [
    ("fail nvmlDeviceSetMigMode 0", "MIG was switched on, but nvmlDeviceGetMigMode says mode 0, pending 0"),
    ("fail nvmlGpuInstanceCreateComputeInstance 0",
     "made 3g.40gb, but the driver lists 3g.40gb (not filled by one)"),
    ("fail nvmlGpuInstanceGetComputeInstanceProfileInfoV 3", "no compute profile of 3 slices fills 3g.40gb"),
    ("fail nvmlDeviceGetMigMode call=2 999", "nvmlDeviceGetMigMode returned"),
    ("fail nvmlDeviceGetGpuInstances call=9 gpu=0 999", "nvmlDeviceGetGpuInstances returned"),
    ("fail nvmlDeviceCreateGpuInstanceWithPlacement 19", "returned NVML_ERROR_IN_USE (19)"),
])
def test_a_library_that_says_yes_and_does_nothing(gpu_guest: MakeGuest, fault: str, words: str) -> None:
    caught = failure(gpu_guest("nvrc.mig=0:3g.40gb", gpus=1, keys="mig-gb=80", text=fault))
    assert caught.code == "E_MIG"
    assert words in caught.what
