# SPDX-License-Identifier: Apache-2.0
"""The C library of this process, for system calls that Python does not offer: its handle, its errors, shared numbers.

Wrappers stand with those who need them: guest_cdi/lean/linux.py for hooks, nvrc/machine/linux.py for PID 1.
"""

from __future__ import annotations

import ctypes
import os

# umount2(2)
MNT_DETACH = 0x02

# clone3(2), unshare(2), setns(2), close_range(2)
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
SYS_CLOSE_RANGE = 436
UINT_MAX = 0xFFFFFFFF

LIBC = ctypes.CDLL(None, use_errno=True)


def checked(result: int, about: str = "") -> int:
    """The result of a call, or OSError as the kernel gives it, with what the call was about as the file name."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), about or None)
