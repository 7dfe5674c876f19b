# SPDX-License-Identifier: Apache-2.0
"""Protected PCIe is what the switches say as well: rows by table, then the stand-in library in the real worker."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.gpu_guest import CONFIDENTIAL, LIBRARIES, GpuGuest, MakeGuest
from fakes.nvml import NSCQ
from nvrc.hardware.topology import PciFunction
from nvrc.nvml.answers import SwitchTold
from nvrc.nvml.judge import Mode
from nvrc.nvml.switches import check_alone, check_switches
from nvrc.steps import cc_check
from nvrc.vocabulary.errors import NvrcError

BUS = ("0000:50:00.0", "0000:50:01.0")
UUID = "SWX-00000000-0000-4000-8000-00000000000"
FIRST, SECOND = (SwitchTold(f"{UUID}{index}", bdf, 3, "") for index, bdf in enumerate(BUS))


@pytest.mark.parametrize("told", [(FIRST, SECOND), (SECOND, FIRST)])
def test_switches_that_confirm_it(told: tuple[SwitchTold, ...]) -> None:
    check_switches(told, BUS)


@pytest.mark.parametrize(("told", "words"), [
    pytest.param((), "0000:50:00.0 does not answer; 0000:50:01.0 does not answer", id="none"),
    pytest.param((FIRST,), "protected PCIe: 0000:50:01.0 does not answer", id="one is missing"),
    pytest.param((FIRST, FIRST, SECOND), "bus id '0000:50:00.0' is listed 2 times", id="one twice"),
    pytest.param((FIRST, FIRST), "0000:50:01.0 does not answer", id="one in another's place"),
    pytest.param((FIRST, SECOND._replace(uuid=FIRST.uuid)), f"UUID '{UUID.lower()}0' is listed 2 times", id="one UUID for two"),
    pytest.param((FIRST, SECOND, SECOND._replace(uuid=f"{UUID}2", bdf="0000:51:00.0")), "'0000:51:00.0' is not on the bus",
                 id="one more than on the bus"),
    pytest.param((FIRST, SECOND._replace(uuid="")), "the UUID '' and the bus id '0000:50:01.0'", id="no UUID"),
    pytest.param((FIRST, SECOND._replace(bdf="")), f"the UUID '{UUID}1' and the bus id ''", id="no bus id"),
    pytest.param((FIRST, SECOND._replace(bdf="50:01.0\nnvrc: READY")), r"bus id '50:01.0\nnvrc: READY'", id="two lines"),
    pytest.param((FIRST, SECOND._replace(mode=0)), "'0000:50:01.0' is in mode off, required is on and locked", id="off"),
    pytest.param((FIRST, SECOND._replace(mode=1)), "is in mode on and not locked", id="not locked"),
    pytest.param((FIRST, SECOND._replace(mode=2)), "is in mode failed", id="failed"),
    pytest.param((FIRST, SECOND._replace(mode=-1)), "is in mode unknown", id="unknown"),
    pytest.param((FIRST, SECOND._replace(mode=7)), "is in mode 7", id="a number without a name"),
    pytest.param((FIRST, SECOND._replace(mode=-1, error="its mode was answered with the code -7")),
                 "'0000:50:01.0': 'its mode was answered with the code -7'", id="refused"),
    pytest.param(tuple(FIRST for _ in range(400)) + (FIRST._replace(mode=0),) * 20, "; and 15 more", id="no end of them"),
])
def test_switches_that_do_not(told: tuple[SwitchTold, ...], words: str) -> None:
    with pytest.raises(NvrcError) as caught:
        check_switches(told, BUS)
    assert caught.value.code == "E_CC_SWITCH"
    assert words in caught.value.what
    assert "\n" not in caught.value.what and len(caught.value.what) < 1000


def test_gpus_without_a_switch_between_them() -> None:
    check_alone(1)
    with pytest.raises(NvrcError, match="2 GPUs are in protected PCIe mode, and no NVSwitch is in this VM"):
        check_alone(2)


# On the stand-in library

PPCIE = CONFIDENTIAL.replace("multigpu=none", "multigpu=ppcie")


def guest_with(make: MakeGuest, library: Path | None, more: str = "", *, extension: str = "", mode: int = 3) -> GpuGuest:
    """Two GPUs and the two switches of the bus, described as they are but for `more`."""
    guest = make("nvrc.cc=ppcie", text=PPCIE, keys="cc=on", extension=extension)
    functions = tuple(PciFunction(bdf=bdf, vendor=0x10DE, device=0x22A3, pci_class=0x068000) for bdf in BUS)
    assert guest.facts.topology is not None
    guest.facts = replace(guest.facts, topology=replace(guest.facts.topology, nvswitches=functions))
    if library is not None:
        folder = guest.root / (extension + LIBRARIES).lstrip("/")
        shutil.copyfile(library, folder / NSCQ)
        rows = "".join(f"switch {UUID}{index} {bdf} {mode}\n" for index, bdf in enumerate(BUS))
        (folder / "nscq-mock.conf").write_text(f"{rows}{more}\n")
    return guest


pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]


@pytest.mark.parametrize("extension", ["", "/run/kata-extensions/gpu"])
def test_the_mode_is_what_switches_confirm(gpu_guest: MakeGuest, nscq_standin: Path, extension: str) -> None:
    facts = guest_with(gpu_guest, nscq_standin, extension=extension).boot(2)
    assert facts.confidential is not None and facts.confidential.mode is Mode.PPCIE
    assert facts.confidential.why == ("NVML: environment production, feature on, developer tools off, multi-GPU protected "
                                      "PCIe, CPU TDX; NSCQ: 2 NVSwitches protected and locked")
    assert cc_check.tell(facts) == "ppcie"


@pytest.mark.parametrize(("more", "words"), [
    pytest.param("gone 1", "protected PCIe: 0000:50:01.0 does not answer", id="not listed"),
    pytest.param("hidden 1", "its mode was answered 0 times", id="silent about its mode"),
    pytest.param("twin 1 0", "its place was answered 2 times", id="one in two places"),
    pytest.param("place 1 0000:50:00.0", "bus id '0000:50:00.0' is listed 2 times", id="two in one place"),
    pytest.param("place 1 0000:51:00.0", "'0000:51:00.0' is not on the bus", id="elsewhere"),
    pytest.param("mode 1 0", "'0000:50:01.0' is in mode off", id="another mode"),
    pytest.param("mode 0 1", "'0000:50:00.0' is in mode on and not locked", id="not locked"),
    pytest.param("code 1 -7", "its place was answered with the code -7", id="refused"),
    pytest.param("code 1 1", "its place was answered with the code 1", id="answered with a caveat"),
    pytest.param("create -127", "nscq_session_create returned -127", id="no session"),
    pytest.param("nodes /nowhere", "nscq_session_create returned -3", id="no nodes"),
    pytest.param("what is this", "nscq_session_create returned -127", id="broken"),
])
def test_what_ends_the_boot(gpu_guest: MakeGuest, nscq_standin: Path, more: str, words: str) -> None:
    guest = guest_with(gpu_guest, nscq_standin, more)
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    assert caught.value.code == "E_CC_SWITCH"
    assert words in caught.value.what
    assert not (guest.root / "run/cdi/nvidia.yaml").exists()


def test_a_session_with_a_caveat_is_one(gpu_guest: MakeGuest, nscq_standin: Path) -> None:
    """NSCQ_RC_WARNING_RDT_INIT_FAILURE, which guests see."""
    assert guest_with(gpu_guest, nscq_standin, "create 1").boot(2).cc_checked


@pytest.mark.parametrize(("content", "words"), [
    (None, "libnvidia-nscq.so.2 is missing, so the NVSwitches cannot be asked for their mode"),
    (b"", "cannot be loaded"), (b"\x7fELF", "cannot be loaded"),
])
def test_without_the_library_nobody_vouches_for_a_switch(gpu_guest: MakeGuest, content: bytes | None, words: str) -> None:
    guest = guest_with(gpu_guest, None)
    if content is not None:
        (guest.root / LIBRARIES.lstrip("/") / NSCQ).write_bytes(content)
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    assert (caught.value.code, words in caught.value.what) == ("E_CC_SWITCH", True)


def test_a_library_of_another_name_is_none(gpu_guest: MakeGuest, nvml_standin: Path) -> None:
    guest = guest_with(gpu_guest, nvml_standin)
    with pytest.raises(NvrcError, match="nscq_session_create"):
        guest.boot()


def test_gpus_in_that_mode_whose_switches_the_host_kept(gpu_guest: MakeGuest) -> None:
    with pytest.raises(NvrcError) as caught:
        gpu_guest(text=PPCIE, keys="cc=on").boot()
    assert caught.value.code == "E_CC_SWITCH"


def test_one_gpu_talks_to_nobody(gpu_guest: MakeGuest) -> None:
    facts = gpu_guest(gpus=1, text=PPCIE, keys="cc=on").boot(2)
    assert facts.confidential is not None and facts.confidential.mode is Mode.PPCIE


def test_in_other_modes_no_switch_is_asked(gpu_guest: MakeGuest, nscq_standin: Path) -> None:
    guest = guest_with(gpu_guest, nscq_standin, "create -127", mode=0)
    guest.describe(CONFIDENTIAL)
    guest.facts = replace(guest.facts, parameters=gpu_guest("nvrc.cc=on").facts.parameters)
    assert guest.boot(2).cc_checked
