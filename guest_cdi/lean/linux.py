# SPDX-License-Identifier: Apache-2.0
"""Kernel calls that the standard library of Python 3.11 does not have, under the kernel's own names.

Every call raises OSError as the kernel gives it, with what it was about as the file name. No policy: which flags make
a lookup safe is decided by the callers. Follows openat2(2), fsopen(2), open_tree(2), move_mount(2),
mount_setattr(2), pivot_root(2), capabilities(7). System calls from number 424 on have one number on all architectures.
"""

from __future__ import annotations

import ctypes
import os

from guest_cdi.lean.libc import LIBC, MNT_DETACH, SYS_CLOSE_RANGE, UINT_MAX, checked

# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

# open_tree(2), move_mount(2), openat(2)
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
CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
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

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_OPENAT2, _MOUNT_SETATTR = 437, 442
_STATFS_BYTES = 256  # larger than struct statfs anywhere; f_type is its first long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _Limit(ctypes.Structure):
    _fields_ = (("soft", ctypes.c_ulong), ("hard", ctypes.c_ulong))


def _syscall(about: str, number: int, *arguments: int | bytes | ctypes.Structure | None) -> int:
    converted = [
        ctypes.c_long(argument) if isinstance(argument, int)
        else ctypes.byref(argument) if isinstance(argument, ctypes.Structure)
        else ctypes.c_char_p(argument)
        for argument in arguments
    ]
    result: int = LIBC.syscall(ctypes.c_long(number), *converted)
    return checked(result, about)


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    return _syscall(path, _OPENAT2, dir_fd, os.fsencode(path), how, ctypes.sizeof(how))


def clone_tree(fd: int, path: str = "", flags: int = 0) -> int:
    """A detached copy of the mount (and with AT_RECURSIVE all below it) that fd or path below fd is on."""
    empty = 0 if path else AT_EMPTY_PATH
    return _syscall(path, _OPEN_TREE, fd, os.fsencode(path), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty | flags)


def attach_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on top of an open file; no path is looked up."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _syscall("move_mount", _MOVE_MOUNT, mount_fd, b"", target_fd, b"", flags)


def new_filesystem(kind: str, attributes: int, **options: str) -> int:
    """A detached mount of a new instance of the file system."""
    context = _syscall(kind, _FSOPEN, os.fsencode(kind), FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            _syscall(f"{kind} {key}={value}", _FSCONFIG, context, FSCONFIG_SET_STRING,
                     os.fsencode(key), os.fsencode(value), 0)
        _syscall(kind, _FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(kind, _FSMOUNT, context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def set_mount_attributes(mount_fd: int, attributes: int) -> None:
    """Add attributes to a mount and take it out of any peer group."""
    attr = _MountAttr(attr_set=attributes, propagation=MS_PRIVATE)
    _syscall("mount_setattr", _MOUNT_SETATTR, mount_fd, b"", AT_EMPTY_PATH, attr, ctypes.sizeof(attr))


def make_private(path: str) -> None:
    """Stop mount events below path from travelling to other namespaces."""
    checked(LIBC.mount(None, os.fsencode(path), None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), path)


def detach_mount(path: str) -> None:
    checked(LIBC.umount2(os.fsencode(path), MNT_DETACH), path)


def pivot_root(new_root: str, put_old: str) -> None:
    checked(LIBC.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def setns(namespace_fd: int, kind: int) -> None:
    checked(LIBC.setns(namespace_fd, kind), "setns")


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags), "unshare")


def prctl(option: int, argument: int, second: int = 0) -> None:
    checked(LIBC.prctl(option, *(ctypes.c_ulong(number) for number in (argument, second, 0, 0))), f"prctl {option}")


def filter_system_calls(program: bytes) -> None:
    """Put a filter of classic BPF before every system call of this process and of what it executes. For good."""
    value = _FilterProgram(len(program) // 8, program)
    try:
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(value))
    except OSError as err:
        raise OSError(err.errno, f"the kernel takes no filter of system calls: {err.strerror}") from err


def limit_resource(kind: int, most: int) -> None:
    checked(LIBC.setrlimit(kind, ctypes.byref(_Limit(most, most))), f"rlimit {kind}")


def limit_capabilities(keep: tuple[int, ...]) -> None:
    """Leave only these capabilities to this process and to what it executes."""
    for number in range(CAP_LAST_POSSIBLE + 1):
        if number in keep:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:  # past the last one that this kernel knows, or already refused to us
            break
    mask = sum(1 << number for number in keep)
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable; low word then high word
    data = (ctypes.c_uint32 * 6)(mask & UINT_MAX, mask & UINT_MAX, 0, mask >> 32, mask >> 32, 0)
    checked(LIBC.capset(header, data), "capset")


def close_on_exec_from(first_fd: int) -> None:
    """Mark every descriptor from this number on, whoever opened it, to be closed by exec."""
    _syscall("close_range", SYS_CLOSE_RANGE, first_fd, UINT_MAX, CLOSE_RANGE_CLOEXEC)


def filesystem_type(fd: int) -> int:
    """The f_type of the file system that an open file (also one opened with O_PATH) is on."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    checked(LIBC.fstatfs(fd, buffer), "fstatfs")
    return ctypes.c_long.from_buffer(buffer).value
