# SPDX-License-Identifier: Apache-2.0
"""A TDX quote held against an image: each register has inputs of its own, so what differs is narrowed down by register.

MRTD is of the firmware, RTMR[1] of the kernel, RTMR[2] of command line and initrd. What was exchanged is tried then, as
for SEV-SNP (evidence.py). RTMR[0] has tables of the machine, RTMR[3] what the guest added: they are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nvrc.params.initdata import Initdata
from nvrc_build.after import tdvf, tdx
from nvrc_build.after.evidence import Report, bound
from nvrc_build.after.measure import Launch
from nvrc_build.after.tdx import Machine
from nvrc_build.ground.errors import BuildError

NOT_COMPARED = ("rtmr_0", "rtmr_3", "xfam")
Others = Sequence[tuple[str, Launch]]


def compare_quote(report: Report, machine: Machine, memories_mib: Sequence[int], *, initdata: Initdata | None,
                  others: Others = ()) -> tuple[str, ...]:
    """What differs, a line each; nothing where the quote is one of this image."""
    return (*_firmware(report, machine, others), *_kernel(report, machine, memories_mib, others),
            *_start(report, machine, others), *bound(report, initdata))


def _firmware(report: Report, machine: Machine, others: Others) -> Iterator[str]:
    if report.measurement == machine.mr_td:
        return
    path = machine.launch.firmware
    if report.measurement == tdvf.measure_firmware(path, machine.firmware, pages_first=True):
        yield "firmware: the host measures its pages in another order, as KVM did before Linux 6.16"
        return
    tried = ((told, launch) for told, launch in others if launch.firmware != path)
    yield _explained(tried, lambda launch: Machine(launch).mr_td == report.measurement) or (
        f"firmware: mr_td is {report.measurement.hex()}, and that of {path} is {machine.mr_td.hex()}")


def _kernel(report: Report, machine: Machine, memories_mib: Sequence[int], others: Others) -> Iterator[str]:
    found, launch = report.registers[1], machine.launch

    def is_found(machine: Machine) -> bool:
        return any(tdx.boot_register(machine.kernel(memory_mib)) == found for memory_mib in memories_mib)

    if is_found(machine):
        return
    if is_found(Machine(launch, keeps_kernel=not machine.keeps_kernel)):
        yield ("kernel: its header is as a QEMU before 10.0 changes it; give --qemu" if machine.keeps_kernel else
               "kernel: its header is as the file has it, so QEMU is 10.0 or later; give --qemu")
        return
    if not machine.is_steady and (size := _memory(found, machine)):
        yield f"memory: the machine was started with {size} MiB or as much, which --memory does not name"
        return
    tried = ((told, other) for told, other in others if other.kernel != launch.kernel)
    yield _explained(tried, lambda other: is_found(Machine(other, keeps_kernel=machine.keeps_kernel))) or (
        f"kernel: rtmr_1 is {found.hex()}, and that of {launch.kernel} is "
        f"{tdx.boot_register(machine.kernel(memories_mib[0])).hex()}")


def _memory(found: bytes, machine: Machine) -> int:
    """The sizes that classes give; each costs the digest of a kernel."""
    for size in (256, 512, 1024, 1536, 2048, 2560, 4096):
        if tdx.boot_register(machine.kernel(size)) == found:
            return size
    return 0


def _start(report: Report, machine: Machine, others: Others) -> Iterator[str]:
    found, launch = report.registers[2], machine.launch
    expected = tdx.start_register(machine.cmdline, machine.initrd)
    if found == expected:
        return
    if found == tdx.start_register(machine.cmdline, None):
        yield "initrd: the machine was started without the image's"
        return
    other_order = tdvf.Loader(initrd_first=not machine.loader.initrd_first)
    options = other_order.options(launch.cmdline, has_initrd=machine.initrd is not None)
    if found == tdx.start_register(tdx.options_digest(options), machine.initrd):
        yield f"firmware: it is of another release: it started the kernel with {options!a}"
        return
    same = (launch.cmdline, launch.initrd)
    tried = ((told, other) for told, other in others if (other.cmdline, other.initrd) != same)
    yield _explained(tried, lambda other: _of(other, machine) == found) or (
        f"command line or initrd: rtmr_2 is {found.hex()}, and that of {launch.cmdline!a} with {launch.initrd} is "
        f"{expected.hex()}")


def _of(other: Launch, machine: Machine) -> bytes:
    """RTMR[2] with the firmware of `machine`; where only the line is another, its initrd is not hashed again."""
    changed = Machine(replace(other, firmware=machine.launch.firmware))
    initrd = machine.initrd if other.initrd == machine.launch.initrd else changed.initrd
    return tdx.start_register(changed.cmdline, initrd)


def _explained(tried: Iterator[tuple[str, Launch]], explains: Callable[[Launch], bool]) -> str:
    for told, launch in tried:
        try:
            if explains(launch):
                return told
        except BuildError:
            continue  # what cannot be measured for TDX was not started by it
    return ""
