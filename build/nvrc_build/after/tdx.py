# SPDX-License-Identifier: Apache-2.0
"""What a TDX guest of an image says of itself: MRTD, RTMR[1], RTMR[2], for QEMU's direct boot with a given firmware.

RTMR[1] has the kernel and how far the firmware came with it, RTMR[2] what the kernel's EFI stub measures: the command
line and the initrd (drivers/firmware/efi/libstub, from Linux 6.10 on). The order is that of event logs of such guests.
RTMR[0] has tables that QEMU makes for each machine, RTMR[3] what the guest adds: neither can be computed from an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from nvrc_build.after import kernel_image, tdvf
from nvrc_build.after.measure import Launch
from nvrc_build.ground.errors import WrongCallError

SIZE = 48
ANY = "any"
_CALLING = b"Calling EFI Application from Boot Option"
_SEPARATOR = bytes(4)
_EXITING, _EXITED = b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers:
    """`kernel`, `cmdline`: digests of their events, None where nothing is measured."""

    mr_td: bytes
    rtmr_1: bytes
    rtmr_2: bytes
    kernel: bytes
    cmdline: bytes | None


class Machine:
    """A launch with its files read, which are large: what is asked for twice is hashed once.

    A QEMU before 10.0 does not offer the kernel as its file is, but with a header that depends on initrd and memory.
    """

    def __init__(self, launch: Launch, *, keeps_kernel: bool = True) -> None:
        self.launch, self.keeps_kernel = launch, keeps_kernel

    @cached_property
    def firmware(self) -> bytes:
        return tdvf.read_firmware(self.launch.firmware)

    @cached_property
    def loader(self) -> tdvf.Loader:
        return tdvf.read_loader(self.launch.firmware, self.firmware)

    @cached_property
    def mr_td(self) -> bytes:
        return tdvf.measure_firmware(self.launch.firmware, self.firmware)

    @cached_property
    def initrd_size(self) -> int:
        return self.launch.initrd.stat().st_size if self.launch.initrd is not None else 0

    @cached_property
    def initrd(self) -> bytes | None:
        """Its event."""
        if self.launch.initrd is None or not self.initrd_size:
            return None
        with self.launch.initrd.open("rb") as stream:
            return hashlib.file_digest(stream, "sha384").digest()

    @property
    def is_steady(self) -> bool:
        """Whether machines of every size say the same."""
        return self.keeps_kernel or not self.initrd_size

    def kernel(self, memory_mib: int) -> bytes:
        """Its event."""
        path = self.launch.kernel
        data = kernel_image.read_kernel(path)
        if not self.keeps_kernel:
            data = kernel_image.change_header(path, data, cmdline=self.launch.cmdline, initrd=self.initrd_size,
                                              memory_mib=memory_mib)
        return kernel_image.image_digest(path, data)

    @property
    def cmdline(self) -> bytes | None:
        """Its event."""
        return options_digest(self.loader.options(self.launch.cmdline, has_initrd=self.initrd_size > 0))

    def registers(self, memory_mib: int) -> Registers:
        mr_td, kernel, cmdline = self.mr_td, self.kernel(memory_mib), self.cmdline
        return Registers(mr_td=mr_td, kernel=kernel, cmdline=cmdline, rtmr_1=boot_register(kernel),
                         rtmr_2=start_register(cmdline, self.initrd))

    def shapes(self, memories_mib: Sequence[int]) -> dict[str, Registers]:
        """By the size of the machine. The number of processors and all devices are in RTMR[0] only."""
        if self.is_steady:
            return {ANY: self.registers(kernel_image.STEADY_MIB)}
        found: dict[str, Registers] = {}
        for memory_mib in sorted(memories_mib):
            large = memory_mib >= kernel_image.STEADY_MIB
            name = f"from {kernel_image.STEADY_MIB} MiB" if large else f"{memory_mib} MiB"
            if name not in found:
                found[name] = self.registers(memory_mib)
        return found


def options_digest(options: str) -> bytes | None:
    """Of a kernel's load options: UTF-16 with the zero at the end; an empty line is not measured."""
    if not options.isascii():
        raise WrongCallError("the command line is not ASCII, and the firmware would change it", "correct --cmdline")
    return hashlib.sha384((options + "\0").encode("utf-16-le")).digest() if options else None


def boot_register(kernel: bytes) -> bytes:
    """RTMR[1]."""
    return extend((kernel, *(hashlib.sha384(text).digest() for text in (_CALLING, _SEPARATOR, _EXITING, _EXITED))))


def start_register(cmdline: bytes | None, initrd: bytes | None) -> bytes:
    """RTMR[2]."""
    return extend(event for event in (cmdline, initrd) if event is not None)


def extend(events: Iterable[bytes]) -> bytes:
    register = bytes(SIZE)
    for event in events:
        register = hashlib.sha384(register + event).digest()
    return register
