# SPDX-License-Identifier: Apache-2.0
"""Which system calls the programs that PID 1 starts do not have: those that change the machine or reach others.

A deny list, because NVIDIA's programs are closed and change with every release: what they need cannot be listed from
outside, what no daemon needs can. What is refused answers EPERM; clone3(2), whose flags a filter cannot read, answers
ENOSYS, so that libc falls back to clone(2). A call of another ABI of the machine kills the program. Follows
Documentation/userspace-api/seccomp_filter.rst; numbers are those of asm/unistd.h.
"""

from __future__ import annotations

import struct
from errno import ENOSYS, EPERM

from nvrc.machine.rights import Calls

# struct seccomp_data: nr, arch, instruction pointer, six arguments; the lower half of an argument comes first
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
# linux/bpf_common.h: load a word from the data; jump; jump if equal, at least, any bit set; return
_LOAD, _JUMP, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_GROUP = 9
_KILL, _ALLOW, _REFUSE, _UNKNOWN = 0x80000000, 0x7FFF0000, 0x00050000 | EPERM, 0x00050000 | ENOSYS
_X32_BIT = 0x40000000    # of x86: a second table of calls under the same architecture

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}     # AUDIT_ARCH of linux/audit.h
# Text, as in guest_cdi/hooks/syscalls.py: a table of so many names would cost a part of a millisecond.
_REFUSED = {
    "x86_64": """
    ptrace=101 process_vm_readv=310 process_vm_writev=311 kcmp=312 pidfd_getfd=438 process_madvise=440
    process_mrelease=448 mount=165 umount2=166 pivot_root=155 chroot=161 open_tree=428 move_mount=429 fsopen=430
    fsconfig=431 fsmount=432 fspick=433 mount_setattr=442 open_tree_attr=467 swapon=167 swapoff=168 reboot=169
    sethostname=170 setdomainname=171 iopl=172 ioperm=173 create_module=174 init_module=175 delete_module=176
    finit_module=313 kexec_load=246 kexec_file_load=320 quotactl=179 quotactl_fd=443 acct=163 settimeofday=164
    clock_settime=227 adjtimex=159 clock_adjtime=305 syslog=103 vhangup=153 setns=308 unshare=272 bpf=321
    perf_event_open=298 userfaultfd=323 add_key=248 request_key=249 keyctl=250 name_to_handle_at=303
    open_by_handle_at=304 fanotify_init=300 io_uring_setup=425 io_uring_enter=426 io_uring_register=427
    lookup_dcookie=212 uselib=134 mknod=133 mknodat=259 modify_ldt=154 statmount=457 listmount=458 listns=470
    io_setup=206
    """,
    "aarch64": """
    ptrace=117 process_vm_readv=270 process_vm_writev=271 kcmp=272 pidfd_getfd=438 process_madvise=440
    process_mrelease=448 mount=40 umount2=39 pivot_root=41 chroot=51 open_tree=428 move_mount=429 fsopen=430
    fsconfig=431 fsmount=432 fspick=433 mount_setattr=442 open_tree_attr=467 swapon=224 swapoff=225 reboot=142
    sethostname=161 setdomainname=162 init_module=105 delete_module=106 finit_module=273 kexec_load=104
    kexec_file_load=294 quotactl=60 quotactl_fd=443 acct=89 settimeofday=170 clock_settime=112 adjtimex=171
    clock_adjtime=266 syslog=116 vhangup=58 setns=268 unshare=97 bpf=280 perf_event_open=241 userfaultfd=282
    add_key=217 request_key=218 keyctl=219 name_to_handle_at=264 open_by_handle_at=265 fanotify_init=262
    io_uring_setup=425 io_uring_enter=426 io_uring_register=427 lookup_dcookie=18 mknodat=33
    statmount=457 listmount=458 listns=470 io_setup=0
    """,
}
_JUDGED = {
    "x86_64": """clone=56 fork=57 vfork=58 clone3=435 execve=59 execveat=322 fcntl=72 ioctl=16 socket=41 kill=62
    tkill=200 tgkill=234 rt_sigqueueinfo=129 rt_tgsigqueueinfo=297 pidfd_send_signal=424 madvise=28 setsid=112""",
    "aarch64": """clone=220 clone3=435 execve=221 execveat=281 fcntl=25 ioctl=29 socket=198 kill=129 tkill=130
    tgkill=131 rt_sigqueueinfo=138 rt_tgsigqueueinfo=240 pidfd_send_signal=424 madvise=233 setsid=157""",
}
# linux/sched.h: mount, cgroup, UTS, IPC, user, PID and network namespaces
_NEW_NAMESPACES, _THREAD = 0x7E020000, 0x00010000
# A signal to whoever owns a descriptor is sent with the rights of the one that named the owner: root may name anybody.
_OWNER_COMMANDS = (8, 10, 15)           # F_SETOWN, F_SETSIG, F_SETOWN_EX
_OWNER_REQUESTS = (0x8901, 0x8902)      # FIOSETOWN, SIOCSPGRP
# TIOCSTI and TIOCLINUX type into a terminal; FIFREEZE, FITHAW and FS_IOC_SHUTDOWN (by its XFS name GOINGDOWN) stop
# a file system, the last for good, and a read-only one as well. With CAP_SYS_ADMIN: RNDADDTOENTCNT, RNDADDENTROPY,
# RNDZAPENTCNT, RNDCLEARPOOL and RNDRESEEDCRNG decide what the kernel makes keys of.
_REQUESTS = (0x5412, 0x541C, 0xC0045877, 0xC0045878, 0x8004587D, 0x40045201, 0x40085203, 0x5204, 0x5206, 0x5207,
             *_OWNER_REQUESTS)
_FAMILIES = (38, 40)                    # AF_ALG, AF_VSOCK: the runtime's way to the agent
# With CAP_SYS_ADMIN a program may say there that a device appeared: the agent would take it for the kernel. And whoever
# has no PID namespace of its own is told there what every process of the guest does: starts, names, ends.
_NETLINK, _EVENTS = 16, (15, 11)        # AF_NETLINK; NETLINK_KOBJECT_UEVENT, NETLINK_CONNECTOR
# Whoever opens the file next, be it to execute it, waits 45 s. Linux 6.19 has a second call for it.
_LEASES = (1024, 1040)                  # F_SETLEASE, F_SETDELEG
# With CAP_SYS_ADMIN: takes pages away as if they were broken, also those that PID 1 has of the same file.
_POISON = (100, 101)                    # MADV_HWPOISON, MADV_SOFT_OFFLINE


def numbers(table: str) -> dict[str, int]:
    """Name and number of each call of a table."""
    pairs = (word.partition("=") for word in table.split())
    return {name: int(number) for name, _, number in pairs}


def refused_calls(machine: str) -> dict[str, int]:
    """Those that every list refuses whatever their arguments are."""
    return numbers(_REFUSED[machine])


def make_filter(machine: str, calls: Calls, own_pid: int) -> bytes:
    """The filter's program for a machine of this name (uname -m); OSError for one whose calls are not listed here."""
    if machine not in ARCHITECTURES:
        raise OSError(ENOSYS, f"the system calls of {machine} are not listed here, so no program can be confined")
    judged = numbers(_JUDGED[machine])
    blocks = [_refuse_all(tuple(refused_calls(machine).values())), _when(judged["clone3"], _UNKNOWN),
              _unless_any(judged["fcntl"], 1, (*_OWNER_COMMANDS, *_LEASES)), _unless_any(judged["ioctl"], 1, _REQUESTS),
              _unless_any(judged["madvise"], 2, _POISON), _sockets(judged["socket"]),
              *_signals(judged, own_pid, calls),
              *_processes(judged, calls)]
    code = [_LOAD, 0, 0, _ARCHITECTURE_AT, _EQUAL, 1, 0, ARCHITECTURES[machine], _RETURN, 0, 0, _KILL,
            _LOAD, 0, 0, _NUMBER_AT, _AT_LEAST, 0, 1, _X32_BIT, _RETURN, 0, 0, _KILL]
    for block in blocks:
        code += block
    code += _RETURN, 0, 0, _ALLOW
    return struct.pack("<" + "HBBI" * (len(code) // 4), *code)


def _refuse_all(numbers: tuple[int, ...]) -> list[int]:
    """Neighbours at once, and groups of them passed over by calls beyond: the kernel compiles a filter that it takes,
    and tries every call on it.
    """
    runs = _runs(numbers)
    groups = [runs[first:first + _GROUP] for first in range(0, len(runs), _GROUP)]
    left = sum(1 + sum(_length(run) for run in group) for group in groups)  # instructions before the answer
    code: list[int] = []
    for group in groups:
        code += _AT_LEAST, sum(_length(run) for run in group), 0, group[-1][1] + 1
        left -= 1
        for first, last in group:
            left -= _length((first, last))
            code += (_EQUAL, left + 1, 0, first) if first == last else (_AT_LEAST, 1, 0, last + 1,
                                                                        _AT_LEAST, left + 1, 0, first)
    return [*code, _JUMP, 0, 0, 1, _RETURN, 0, 0, _REFUSE]


def _runs(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last of every run of neighbours."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return list(zip(starts, ends, strict=True))


def _length(run: tuple[int, int]) -> int:
    return 1 if run[0] == run[1] else 2


def _when(number: int, answer: int) -> list[int]:
    return [_EQUAL, 0, 1, number, _RETURN, 0, 0, answer]


def _with_argument(number: int, argument: int, rest: list[int]) -> list[int]:
    """`rest` is for this call alone, has the argument loaded, and must return."""
    return [_EQUAL, 0, 1 + len(rest) // 4, number, _LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument, *rest]


def _unless_any(number: int, argument: int, values: tuple[int, ...]) -> list[int]:
    refusals = [word for value in values for word in _when(value, _REFUSE)]
    return _with_argument(number, argument, [*refusals, _RETURN, 0, 0, _ALLOW])


def _sockets(number: int) -> list[int]:
    """By family, and those of netlink by what they are for."""
    families = [word for family in _FAMILIES for word in _when(family, _REFUSE)]
    netlink = [_EQUAL, 1, 0, _NETLINK, _RETURN, 0, 0, _ALLOW, _LOAD, 0, 0, _ARGUMENTS_AT + 16]
    events = [word for protocol in _EVENTS for word in _when(protocol, _REFUSE)]
    return _with_argument(number, 0, [*families, *netlink, *events, _RETURN, 0, 0, _ALLOW])


def _signals(judged: dict[str, int], own_pid: int, calls: Calls) -> list[list[int]]:
    """To PID 1 and to all that there is at once never; for one that starts no others, to itself only.

    What that starts all the same has the same filter, may outlive it, and then the pid is given again. Not while a
    process is in the session of that number: so there is no leaving it. A program that goes into the background has to.
    """
    if calls is Calls.DAEMON:
        return [_unless_any(judged["kill"], 0, (1, 0xFFFFFFFF))]
    others = ("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
    if calls is Calls.SILENT:
        return [_when(judged[name], _REFUSE) for name in ("kill", "tgkill", *others)]
    to_itself = [_EQUAL, 0, 1, own_pid, _RETURN, 0, 0, _ALLOW, _RETURN, 0, 0, _REFUSE]
    return [*(_with_argument(judged[name], 0, to_itself) for name in ("kill", "tgkill")),
            *(_when(judged[name], _REFUSE) for name in (*others, "setsid"))]


def _processes(judged: dict[str, int], calls: Calls) -> list[list[int]]:
    """Threads always; processes but in no namespaces of their own, or none at all."""
    refused = {Calls.WORKER: ("fork", "vfork", "execve", "execveat"), Calls.SINGLE: ("fork", "vfork")}.get(calls, ())
    threads_only = [_ANY_BIT, 1, 0, _THREAD, _RETURN, 0, 0, _REFUSE] if refused else []
    flags = [_ANY_BIT, 0, 1, _NEW_NAMESPACES, _RETURN, 0, 0, _REFUSE, *threads_only, _RETURN, 0, 0, _ALLOW]
    return [_with_argument(judged["clone"], 0, flags),
            *(_when(judged[name], _REFUSE) for name in refused if name in judged)]
