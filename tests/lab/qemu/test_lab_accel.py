# SPDX-License-Identifier: Apache-2.0
"""The choice between KVM and emulation, with a runner that gives what a probe could give."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nvrc_lab.qemu import kvm_probe as probe
from nvrc_lab.qemu.accel import LIMIT_S, Choice, choose_accel, run_limited, run_probe
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.qemu.qemu import Qemu, find_qemu

QEMU = Qemu(program="/usr/bin/qemu", version=(7, 2))


@dataclass
class Probe:
    """Answers every probe with `status` and keeps the command lines."""

    status: int | None
    calls: list[tuple[str, ...]] = field(default_factory=list)
    firmware: bytes = b""

    def __call__(self, argv: tuple[str, ...], limit_s: float) -> int | None:
        assert limit_s == LIMIT_S
        self.calls.append(argv)
        self.firmware = Path(argv[argv.index("-bios") + 1]).read_bytes()
        return self.status


@dataclass(frozen=True)
class Host:
    folder: Path

    def choose(self, run: Probe, *, boot: str = "boot-1", qemu: Qemu = QEMU, device: str = "kvm") -> Choice:
        (self.folder / "kvm").touch()
        (self.folder / "boot_id").write_text(f"{boot}\n")
        return choose_accel(qemu, self.cache, run=run, device=self.folder / device, boot_id=self.folder / "boot_id")

    @property
    def cache(self) -> Path:
        return self.folder / "out" / "accel.json"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


ANSWERS = {
    "the guest ran": (probe.STATUS, Accel.KVM, "ran a 64-bit guest"),
    "it hung": (None, Accel.TCG, "still hung after 3 s"),
    "it reset": (0, Accel.TCG, "QEMU's status: 0"),
    "QEMU aborted": (-6, Accel.TCG, "QEMU's status: -6"),
}


@pytest.mark.parametrize(("status", "accel", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_only_the_probes_own_status_makes_kvm_good(host: Host, status: int | None, accel: Accel, reason: str) -> None:
    choice = host.choose(Probe(status))
    assert choice.accel is accel
    assert reason in choice.reason


def test_the_probe_runs_on_kvm_with_the_guest_as_firmware(host: Host) -> None:
    run = Probe(probe.STATUS)
    host.choose(run)
    line = " ".join(run.calls[0])
    assert line.startswith("/usr/bin/qemu -M q35 -accel kvm")
    assert f"-device {probe.DEVICE}" in line
    assert run.firmware == probe.make_firmware()


def test_the_firmware_is_left_nowhere(host: Host) -> None:
    run = Probe(None)
    host.choose(run)
    assert not Path(run.calls[0][run.calls[0].index("-bios") + 1]).parent.exists()


def test_no_device_is_emulation_without_a_probe(host: Host) -> None:
    run = Probe(probe.STATUS)
    assert host.choose(run, device="none").accel is Accel.TCG
    assert run.calls == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_closed_device_is_emulation_without_a_probe(host: Host) -> None:
    run = Probe(probe.STATUS)
    host.choose(run)
    (host.folder / "kvm").chmod(0)
    choice = choose_accel(QEMU, host.cache, run=run, device=host.folder / "kvm", boot_id=host.folder / "boot_id")
    assert (choice.accel, len(run.calls)) == (Accel.TCG, 1)
    assert "not open to this user" in choice.reason


def test_the_answer_is_remembered(host: Host) -> None:
    first = host.choose(Probe(None))
    again = Probe(probe.STATUS)
    assert host.choose(again) == first
    assert again.calls == []


def test_another_boot_or_another_qemu_asks_again(host: Host) -> None:
    host.choose(Probe(None))
    assert host.choose(Probe(probe.STATUS), boot="boot-2").accel is Accel.KVM
    newer = Qemu(program=QEMU.program, version=(10, 0))
    assert host.choose(Probe(None), boot="boot-2", qemu=newer).accel is Accel.TCG


@pytest.mark.parametrize("text", [
    "", "{", "[]", '"x"', "null", '{"key": 1}',
    json.dumps({"key": "boot-1 /usr/bin/qemu 7.2", "accel": "hvf", "reason": "x"}),
    json.dumps({"key": "boot-1 /usr/bin/qemu 7.2", "accel": "kvm"}),
], ids=["empty", "cut", "list", "string", "null", "wrong types", "unknown accelerator", "no reason"])
def test_a_damaged_memory_asks_again(host: Host, text: str) -> None:
    host.cache.parent.mkdir()
    host.cache.write_text(text)
    run = Probe(probe.STATUS)
    assert host.choose(run).accel is Accel.KVM
    assert len(run.calls) == 1
    assert host.choose(Probe(None)).accel is Accel.KVM


def test_the_probe_fits_its_place() -> None:
    image = probe.make_firmware()
    assert len(image) == probe.SIZE
    # The reset vector jumps to offset 0, where the first instruction forbids interrupts.
    assert image[0xFFF0:0xFFF3] == b"\xe9\x0d\x00"
    assert image[0] == 0xFA


@pytest.mark.parametrize(("argv", "status"), [(("true",), 0), (("false",), 1), (("sleep", "60"), None)],
                         ids=["good", "bad", "hangs"])
def test_a_program_is_ended_when_its_time_is_up(argv: tuple[str, ...], status: int | None) -> None:
    assert run_limited(argv, 0.05 if status is None else 20) == status


@pytest.mark.qemu
def test_the_probe_really_ends_an_emulated_machine() -> None:
    # Emulation always runs it: a probe that could not succeed would condemn every KVM.
    assert run_probe(find_qemu(), Accel.TCG, lambda argv, _limit_s: run_limited(argv, 30)) == probe.STATUS
