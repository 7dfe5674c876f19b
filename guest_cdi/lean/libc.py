# SPDX-License-Identifier: Apache-2.0
"""System calls that Python does not offer: their numbers, their errors, shared constants.

Wrappers stand with those who need them: guest_cdi/lean/linux.py for hooks, nvrc/machine/linux.py for PID 1.
"""

from __future__ import annotations

import os

from guest_cdi.lean.kernel import call

# Calls from number 424 on have one number on all architectures.
_IS_X86 = os.uname().machine == "x86_64"
SYS_MOUNT, SYS_UMOUNT2, SYS_PIVOT_ROOT = (165, 166, 155) if _IS_X86 else (40, 39, 41)
SYS_UNSHARE, SYS_SETNS, SYS_PRCTL, SYS_CAPSET = (272, 308, 157, 126) if _IS_X86 else (97, 268, 167, 91)
SYS_MADVISE, SYS_BPF = (28, 321) if _IS_X86 else (233, 280)
SYS_PRLIMIT64, SYS_FSTATFS, SYS_SIGNALFD4 = (302, 138, 289) if _IS_X86 else (261, 44, 74)
SYS_REBOOT, SYS_INIT_MODULE, SYS_FINIT_MODULE = (169, 175, 313) if _IS_X86 else (142, 105, 273)
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 428, 429, 430, 431, 432
SYS_CLONE3, SYS_CLOSE_RANGE, SYS_OPENAT2, SYS_MOUNT_SETATTR = 435, 436, 437, 442

# umount2(2)
MNT_DETACH = 0x02

# clone3(2), unshare(2), setns(2), close_range(2)
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
UINT_MAX = 0xFFFFFFFF


def syscall(about: str, number: int, *arguments: int | bytes | bytearray | None) -> int:
    """The result of a call, or OSError as the kernel gives it, with what the call was about as the file name."""
    return checked(call(number, *arguments), about)


def checked(result: int, about: str = "") -> int:
    if result >= 0:
        return result
    raise OSError(-result, os.strerror(-result), about or None)
