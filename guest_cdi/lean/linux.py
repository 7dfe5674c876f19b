# SPDX-License-Identifier: Apache-2.0
"""Kernel calls that the standard library of Python 3.11 does not have, under the kernel's own names.

Every call raises OSError as the kernel gives it, with what it was about as the file name. No policy: which flags make
a lookup safe is decided by the callers. Follows openat2(2), fsopen(2), open_tree(2), move_mount(2),
mount_setattr(2), pivot_root(2), capabilities(7). Their numbers are in libc.py.
"""

from __future__ import annotations

import os
import struct

from guest_cdi.lean.kernel import address, call
from guest_cdi.lean.libc import (
    MNT_DETACH,
    SYS_CAPSET,
    SYS_CLOSE_RANGE,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_FSTATFS,
    SYS_MOUNT,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_OPENAT2,
    SYS_PIVOT_ROOT,
    SYS_PRCTL,
    SYS_PRLIMIT64,
    SYS_SETNS,
    SYS_UMOUNT2,
    SYS_UNSHARE,
    UINT_MAX,
    syscall,
)

# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

# open_tree(2), move_mount(2), openat(2)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 0x01
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

# fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2)
FSOPEN_CLOEXEC = 0x01
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 0x01
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# mount(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x01, 0x02, 0x04, 0x08
MS_REMOUNT, MS_BIND = 0x20, 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

# unshare(2), setns(2), signal(7)
SIGKILL = 9
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000

# prctl(2), capabilities(7)
PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_THP_DISABLE = 41
CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_LAST_POSSIBLE = 63
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# seccomp(2), getrlimit(2)
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RLIMIT_DATA, RLIMIT_CORE = 2, 4

# memfd_create(2), close_range(2), statfs(2)
MFD_EXEC = 0x10
CLOSE_RANGE_CLOEXEC = 0x04
PROC_SUPER_MAGIC = 0x9FA0

_OPEN_HOW = struct.Struct("QQQ")  # flags, mode, resolve
_MOUNT_ATTR = struct.Struct("QQQQ")  # attr_set, attr_clr, propagation, userns_fd
_SOCK_FPROG = struct.Struct("HP")  # how many instructions, and where
_RLIMIT = struct.Struct("QQ")  # soft, hard
_STATFS_BYTES = 256  # larger than struct statfs anywhere; f_type is its first long


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    return syscall(path, SYS_OPENAT2, dir_fd, os.fsencode(path), how, len(how))


def clone_tree(fd: int, path: str = "", flags: int = 0) -> int:
    """A detached copy of the mount (and with AT_RECURSIVE all below it) that fd or path below fd is on."""
    empty = 0 if path else AT_EMPTY_PATH
    return syscall(path, SYS_OPEN_TREE, fd, os.fsencode(path), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty | flags)


def attach_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on top of an open file; no path is looked up."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", SYS_MOVE_MOUNT, mount_fd, b"", target_fd, b"", flags)


def place_mount(mount_fd: int, path: str) -> None:
    """Attach a detached mount on top of what a path leads to."""
    syscall(path, SYS_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)


def new_filesystem(kind: str, attributes: int, **options: str) -> int:
    """A detached mount of a new instance of the file system."""
    context = syscall(kind, SYS_FSOPEN, os.fsencode(kind), FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            syscall(f"{kind} {key}={value}", SYS_FSCONFIG, context, FSCONFIG_SET_STRING,
                    os.fsencode(key), os.fsencode(value), 0)
        syscall(kind, SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall(kind, SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def set_mount_attributes(mount_fd: int, attributes: int) -> None:
    """Add attributes to a mount and take it out of any peer group."""
    attr = _MOUNT_ATTR.pack(attributes, 0, MS_PRIVATE, 0)
    syscall("mount_setattr", SYS_MOUNT_SETATTR, mount_fd, b"", AT_EMPTY_PATH, attr, len(attr))


def set_tree_attributes(path: str, attributes: int) -> None:
    """Add attributes to the mount at the path and to every one below it."""
    attr = _MOUNT_ATTR.pack(attributes, 0, 0, 0)
    syscall(path, SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, attr, len(attr))


def mount_filesystem(kind: str, path: str, flags: int, options: str) -> None:
    """A new instance of the file system on top of what is there."""
    syscall(path, SYS_MOUNT, kind.encode(), os.fsencode(path), kind.encode(), flags, options.encode())


def bind(path: str, place: str) -> None:
    """What is at the path, at the place as well; with what it is mounted with."""
    syscall(place, SYS_MOUNT, path.encode(), place.encode(), None, MS_BIND, None)


def remount_bind(place: str, flags: int) -> None:
    """With these flags of mount(2) and no others."""
    syscall(place, SYS_MOUNT, None, place.encode(), None, MS_REMOUNT | MS_BIND | flags, None)


def make_private(path: str) -> None:
    """Stop mount events below path from travelling to other namespaces."""
    syscall(path, SYS_MOUNT, None, os.fsencode(path), None, MS_REC | MS_PRIVATE, None)


def detach_mount(path: str) -> None:
    syscall(path, SYS_UMOUNT2, os.fsencode(path), MNT_DETACH)


def pivot_root(new_root: str, put_old: str) -> None:
    syscall("pivot_root", SYS_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old))


def setns(namespace_fd: int, kind: int) -> None:
    syscall("setns", SYS_SETNS, namespace_fd, kind)


def unshare(flags: int) -> None:
    syscall("unshare", SYS_UNSHARE, flags)


def prctl(option: int, argument: int, second: int = 0) -> None:
    syscall(f"prctl {option}", SYS_PRCTL, option, argument, second, 0, 0)


def filter_system_calls(program: bytes) -> None:
    """Put a filter of classic BPF before every system call of this process and of what it executes. For good."""
    value = _SOCK_FPROG.pack(len(program) // 8, address(program))
    try:
        syscall("", SYS_PRCTL, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, value, 0, 0)
    except OSError as err:
        raise OSError(err.errno, f"the kernel takes no filter of system calls: {err.strerror}") from err


def limit_resource(kind: int, most: int) -> None:
    syscall(f"rlimit {kind}", SYS_PRLIMIT64, 0, kind, _RLIMIT.pack(most, most), None)


def limit_capabilities(keep: tuple[int, ...]) -> None:
    """Leave only these capabilities to this process and to what it executes."""
    drop_bounding(keep)
    set_capabilities(keep)


def drop_bounding(keep: tuple[int, ...]) -> None:
    """Nothing that is executed from here on can have other capabilities than these."""
    for number in range(CAP_LAST_POSSIBLE + 1):
        # The first that fails is past the last one that this kernel knows, or all are refused to us.
        if number not in keep and call(SYS_PRCTL, PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break


def set_capabilities(keep: tuple[int, ...], inheritable: tuple[int, ...] = ()) -> None:
    """Of this process itself."""
    mask, passed = (sum(1 << number for number in numbers) for numbers in (keep, inheritable))
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable; low word then high word
    data = struct.pack("6I", mask & UINT_MAX, mask & UINT_MAX, passed & UINT_MAX, mask >> 32, mask >> 32, passed >> 32)
    syscall("capset", SYS_CAPSET, header, data)


def close_on_exec_from(first_fd: int) -> None:
    """Mark every descriptor from this number on, whoever opened it, to be closed by exec."""
    syscall("close_range", SYS_CLOSE_RANGE, first_fd, UINT_MAX, CLOSE_RANGE_CLOEXEC)


def filesystem_type(fd: int) -> int:
    """The f_type of the file system that an open file (also one opened with O_PATH) is on."""
    buffer = bytearray(_STATFS_BYTES)
    syscall("fstatfs", SYS_FSTATFS, fd, buffer)
    found: int = struct.unpack_from("l", buffer)[0]
    return found
