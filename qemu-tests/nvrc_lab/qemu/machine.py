# SPDX-License-Identifier: Apache-2.0
"""A virtual machine as a value, and the QEMU command line that it means. Starts nothing; qemu-system(1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Accel(Enum):
    """`counted`: emulation in which the guest's clock goes on by a nanosecond with each instruction and leaps over idle
    time. What it measures does not depend on how busy the host is, nor on what emulation makes dear.
    """

    KVM = "kvm"
    TCG = "tcg"
    COUNTED = "counted"


# What the emulated processor must and must not have (seen with QEMU 7.2 and a 6.12 kernel):
#   Nehalem, not "max": no 5-level paging, which emulation pays for at every memory access.
#   +rdrand: without it the kernel has no random numbers yet when PID 1 starts, and CPython refuses to start.
#   model=28: one that the kernel knows to have no fault of speculation (an Atom of 2008). For others it changes page
#   tables at every entry, which emulation pays for dearly: a third of the time of a start. No policy of an image lets
#   mitigations=off stand.
#   -cx16: emulated cmpxchg16b leaves garbage in EFLAGS; 6 of 36 boots died of it in __kmalloc or at the next iret,
#   none of 40 without. Kernel and user space of the distribution do not need the instruction.
TCG_CPU = "Nehalem,model=28,+rdrand,-cx16"
# One thread of the host for each virtual processor.
_ACCEL = {
    Accel.KVM: ("-accel", "kvm", "-cpu", "host"),
    Accel.TCG: ("-accel", "tcg,thread=multi", "-cpu", TCG_CPU),
    Accel.COUNTED: ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", TCG_CPU),
}
# What the guest's seconds are made of. The HPET's frequency is fixed, and it counts the host's own seconds. With the
# emulated time stamp counter and tsc=reliable a boot of 27 s said that it had taken 345; supposed is that the guest
# found a wrong frequency while the host was busy. The kernel also tries for ten ticks whether its timer works; on a
# busy host it did not see them (`MP-BIOS bug: 8254 timer not connected to IO-APIC`), and went no further.
_CLOCK = {
    Accel.KVM: ("no_timer_check", "tsc=reliable"),
    Accel.TCG: ("no_timer_check", "tsc=unstable", "clocksource=hpet"),
    Accel.COUNTED: ("no_timer_check", "tsc=reliable"),
}
# What a starting kernel leaves out, as Kata has it do: no test asks about it, and emulation pays dearly. Tests of
# ciphers; taking the lock prefix out of its code for a single processor, each time throwing away what was translated.
SPARED = ("cryptomgr.notests", "noreplace-smp")
# The firmware that most QEMUs have for a given kernel: the same tables of ACPI, and no look for disks and option ROMs.
# Of a boot of 6.6 s of a busy processor it took 0.7 s off, most of that after the firmware.
QUICK_FIRMWARE = "share/qemu/qboot.rom"  # beside the folder of QEMU's program
# The kernel prints to each of them; the last one named is /dev/console, where programs print.
_ONE_PORT, _TWO_PORTS = ("console=ttyS0",), ("console=ttyS0", "console=ttyS1", "printk.time=1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A raw image on virtio-blk; the guest finds it by its serial, or by what is on it."""

    path: Path
    serial: str = ""
    is_read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the guest sees. `devices` are QEMU's own -device words, in order; `extra` any further arguments.

    `vsock`: the socket of a device beside QEMU, which then shares the guest's memory.
    `console`: a file for what the second serial port says. Then the first has the kernel's log alone, which is the
    init's as well, and the second also what programs print: nothing can break into a line of the first.
    """

    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    firmware: Path | None = None
    memory_mib: int = 512
    cpus: int = 1
    numa: int = 1
    disks: tuple[Disk, ...] = ()
    devices: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    qmp_socket: Path | None = None
    vsock: Path | None = None
    console: Path | None = None


def make_argv(machine: Machine, program: str, accel: Accel) -> tuple[str, ...]:
    """The first serial port of the guest is standard output; no reboot, so a guest that restarts ends."""
    words = [
        program, "-M", "q35", *_ACCEL[accel], "-m", f"{machine.memory_mib}M", "-smp", str(machine.cpus),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
    ]
    if machine.console is not None:
        words += ["-serial", f"file:{escape(machine.console)}"]
    words += _memory(machine)
    for option, path in (("-kernel", machine.kernel), ("-initrd", machine.initrd), ("-bios", machine.firmware)):
        if path is not None:
            words += [option, str(path)]
    if accel is Accel.TCG and machine.kernel is not None and machine.firmware is None:
        quick = Path(program).parent.parent / QUICK_FIRMWARE
        words += ["-bios", str(quick)] if quick.is_file() else []
    if machine.cmdline:
        ports = _TWO_PORTS if machine.console else _ONE_PORT
        spared = SPARED if accel is Accel.TCG else ()
        words += ["-append", " ".join((*_CLOCK[accel], *spared, *ports, machine.cmdline))]
    for number, disk in enumerate(machine.disks):
        words += _disk(number, disk)
    for device in machine.devices:
        words += ["-device", device]
    if machine.vsock is not None:
        words += ["-chardev", f"socket,id=vsock,path={escape(machine.vsock)}",
                  "-device", "vhost-user-vsock-pci,chardev=vsock,bus=pcie.0"]
    if machine.qmp_socket is not None:
        words += ["-qmp", f"unix:{escape(machine.qmp_socket)},server=on,wait=off"]
    return (*words, *machine.extra)


def _memory(machine: Machine) -> list[str]:
    """Memory and processors divided over nodes; the first ones get what is left over."""
    words: list[str] = []
    kind, shared = ("memory-backend-ram", "") if machine.vsock is None else ("memory-backend-memfd", ",share=on")
    if machine.numa < 2:
        return words if machine.vsock is None else [
            "-object", f"{kind},id=memory,size={machine.memory_mib}M{shared}", "-machine", "memory-backend=memory"]
    for node in range(machine.numa):
        size = machine.memory_mib // machine.numa + (machine.memory_mib % machine.numa if node == 0 else 0)
        own = "".join(f",cpus={cpu}" for cpu in range(machine.cpus) if cpu % machine.numa == node)
        words += ["-object", f"{kind},id=memory{node},size={size}M{shared}",
                  "-numa", f"node,nodeid={node},memdev=memory{node}{own}"]
    return words


def _disk(number: int, disk: Disk) -> list[str]:
    name = f"disk{number}"
    only = "on" if disk.is_read_only else "off"
    return ["-drive", f"if=none,id={name},format=raw,readonly={only},file={escape(disk.path)}",
            "-device", f"virtio-blk-pci,drive={name}" + (f",serial={escape(disk.serial)}" if disk.serial else "")]


def escape(value: Path | str) -> str:
    """QEMU reads a doubled comma in an option as one."""
    return str(value).replace(",", ",,")
