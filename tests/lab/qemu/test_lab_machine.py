# SPDX-License-Identifier: Apache-2.0
"""The QEMU command line of a machine, and the kernel command line that the lab writes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nvrc_lab.ground.errors import LabError
from nvrc_lab.qemu.cmdline import BASE, LIMIT_BYTES, MACHINE_BYTES, make_cmdline
from nvrc_lab.qemu.machine import QUICK_FIRMWARE, SPARED, Accel, Disk, Machine, make_argv
from nvrc_lab.qemu.qemu import check_version, find_qemu

ALWAYS = ("-nodefaults", "-no-user-config", "-no-reboot", "-serial stdio", "-display none")
SPARE = " ".join(SPARED)
ROWS = {
    "the default machine is small": (Machine(), ("-M q35", "-m 512M", "-smp 1")),
    "kernel, initrd and command line": (
        Machine(kernel=Path("/k"), initrd=Path("/i"), cmdline="quiet a=\"b c\""),
        ("-kernel /k -initrd /i", f"-append no_timer_check tsc=unstable clocksource=hpet {SPARE} console=ttyS0 quiet a=\"b c\"")),
    "a console beside the kernel's log": (
        Machine(kernel=Path("/k"), cmdline="quiet", console=Path("/a,b")),
        ("-serial stdio -serial file:/a,,b", f"clocksource=hpet {SPARE} console=ttyS0 console=ttyS1 printk.time=1 quiet")),
    "firmware of its own": (Machine(firmware=Path("/f")), ("-bios /f",)),
    "memory and processors": (Machine(memory_mib=8192, cpus=4), ("-m 8192M", "-smp 4")),
    "memory and processors over two nodes": (Machine(memory_mib=513, cpus=2, numa=2), (
        "-object memory-backend-ram,id=memory0,size=257M -numa node,nodeid=0,memdev=memory0,cpus=0 "
        "-object memory-backend-ram,id=memory1,size=256M -numa node,nodeid=1,memdev=memory1,cpus=1",)),
    "a disk is read-only and has a serial": (
        Machine(disks=(Disk(path=Path("/a,b.img"), serial="gpu"),)),
        ("-drive if=none,id=disk0,format=raw,readonly=on,file=/a,,b.img -device virtio-blk-pci,drive=disk0,serial=gpu",)),
    "a second disk, writable": (
        Machine(disks=(Disk(path=Path("/a"), serial="a"), Disk(path=Path("/b"), serial="b", is_read_only=False))),
        ("id=disk1,format=raw,readonly=off,file=/b -device virtio-blk-pci,drive=disk1,serial=b",)),
    "devices in order": (Machine(devices=("one,x=1", "two")), ("-device one,x=1 -device two",)),
    "a control socket": (Machine(qmp_socket=Path("/s")), ("-qmp unix:/s,server=on,wait=off",)),
    "a vsock device shares the memory": (Machine(vsock=Path("/a,b")), (
        "-object memory-backend-memfd,id=memory,size=512M,share=on -machine memory-backend=memory",
        "-chardev socket,id=vsock,path=/a,,b -device vhost-user-vsock-pci,chardev=vsock,bus=pcie.0")),
    "and that of each node": (Machine(vsock=Path("/v"), numa=2), (
        "memory-backend-memfd,id=memory0,size=256M,share=on -numa node,nodeid=0,memdev=memory0",
        "memory-backend-memfd,id=memory1,size=256M,share=on -numa node,nodeid=1,memdev=memory1")),
    "further words come last": (Machine(extra=("-trace", "x")), ("-trace x",)),
}


@pytest.mark.parametrize(("machine", "expected"), ROWS.values(), ids=ROWS)
def test_a_machine_means_this_command_line(machine: Machine, expected: tuple[str, ...]) -> None:
    line = " ".join(make_argv(machine, "qemu", Accel.TCG))
    assert line.startswith("qemu -M q35 -accel tcg,thread=multi -cpu ")
    assert [part for part in (*ALWAYS, *expected) if part not in line] == []


@pytest.mark.parametrize(("accel", "words"), [
    (Accel.KVM, "no_timer_check tsc=reliable"), (Accel.TCG, f"no_timer_check tsc=unstable clocksource=hpet {SPARE}"),
    (Accel.COUNTED, "no_timer_check tsc=reliable"),
], ids=["kvm", "emulated: no counter whose frequency it would have to find out", "counted"])
def test_the_clock_of_a_machine(accel: Accel, words: str) -> None:
    machine = Machine(kernel=Path("/k"), cmdline="quiet", console=Path("/c"))
    append = next(word for word in make_argv(machine, "qemu", accel) if word.endswith(" quiet"))
    assert append == f"{words} console=ttyS0 console=ttyS1 printk.time=1 quiet"
    assert len(append) - len("quiet") <= MACHINE_BYTES


@pytest.mark.parametrize("has_it", [True, False])
def test_an_emulated_machine_that_is_given_a_kernel_has_the_quick_firmware_of_its_qemu(tmp_path: Path, has_it: bool) -> None:
    quick, program, given = tmp_path / QUICK_FIRMWARE, str(tmp_path / "bin/qemu"), Machine(kernel=Path("/k"))
    if has_it:
        quick.parent.mkdir(parents=True)
        quick.touch()
    chosen = [("-bios", str(quick)) in itertools.pairwise(make_argv(machine, program, accel)) for machine, accel in (
        (given, Accel.TCG), (given, Accel.KVM), (given, Accel.COUNTED), (Machine(), Accel.TCG),
        (Machine(kernel=Path("/k"), firmware=Path("/f")), Accel.TCG))]
    assert chosen == [has_it, False, False, False, False]


def test_nothing_is_passed_that_was_not_asked_for() -> None:
    argv = make_argv(Machine(), "qemu", Accel.TCG)
    for word in ("-kernel", "-initrd", "-bios", "-append", "-drive", "-device", "-qmp", "-numa", "-object"):
        assert word not in argv


def test_the_emulated_processor_avoids_what_emulation_gets_wrong() -> None:
    cpu = make_argv(Machine(), "qemu", Accel.TCG)[6]
    assert "-cx16" in cpu.split(",")
    assert "+rdrand" in cpu.split(",")


def test_kvm_passes_the_host_processor() -> None:
    assert "-accel kvm -cpu host" in " ".join(make_argv(Machine(), "qemu", Accel.KVM))
    assert "-icount shift=0,sleep=off" in " ".join(make_argv(Machine(), "qemu", Accel.COUNTED))


@pytest.mark.parametrize(("text", "version"), [
    ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", (7, 2)),
    ("QEMU emulator version 10.0.2", (10, 0)),
])
def test_versions_that_will_do(text: str, version: tuple[int, int]) -> None:
    assert check_version("qemu", text) == version


@pytest.mark.parametrize(("text", "expected"), [
    ("QEMU emulator version 6.2.0", "qemu is version 6.2, older than 7.2: install a newer qemu-system-x86"),
    ("no such thing", "qemu --version prints no version but ['no such thing']: reinstall"),
    ("", "qemu --version prints no version but []: reinstall"),
], ids=["too old", "something else", "nothing"])
def test_versions_that_will_not(text: str, expected: str) -> None:
    with pytest.raises(LabError) as caught:
        check_version("qemu", text)
    assert str(caught.value).startswith(expected)


def test_a_missing_qemu_names_the_package() -> None:
    with pytest.raises(LabError, match="qemu-system-nothing is not installed: install the package qemu-system-x86"):
        find_qemu("qemu-system-nothing")


def test_the_callers_words_come_last() -> None:
    assert make_cmdline(" console=hvc0 ", has_standin=True).split() == [*BASE, "lab.agent=poweroff", "console=hvc0"]


def test_a_foreign_agent_is_told_nothing() -> None:
    assert make_cmdline("", has_standin=False).split() == list(BASE)


@pytest.mark.parametrize(("extra", "what"), [
    ("x" * LIMIT_BYTES, "longer than 1911 of the kernel's 2047 bytes"),
    ("a\nb", "line break or NUL"),
    ("a\0b", "line break or NUL"),
], ids=["too long", "line break", "nul"])
def test_command_lines_that_the_kernel_would_cut(extra: str, what: str) -> None:
    with pytest.raises(LabError, match=what):
        make_cmdline(extra, has_standin=True)
