# SPDX-License-Identifier: Apache-2.0
"""Which system calls a confined ldconfig has: those of reading libraries and writing a cache. The rest is not there.

An allow list: whatever takes a process out of its root or into the kernel's less tried parts (handles of files,
mounts, namespaces, tracing, BPF, keys, modules, sockets, new processes) is not on it, nor is what the next kernel
brings. What is not listed answers ENOSYS, as on an older kernel, so that a libc falls back where it can. A call of
another ABI of the machine kills the program. Follows Documentation/userspace-api/seccomp_filter.rst; numbers are those
of asm/unistd.h.
"""

from __future__ import annotations

import struct
from errno import ENOSYS

# struct seccomp_data: nr, arch, instruction pointer, six arguments
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
# linux/bpf_common.h: load a word from the data, jump if equal, jump if greater or equal, return
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | ENOSYS, 0x7FFF0000
_X32_BIT = 0x40000000    # of x86: a second table of calls under the same architecture

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}     # AUDIT_ARCH of linux/audit.h
# Text, because a table of so many names would cost every start of a hook a part of a millisecond.
_CALLS = {
    "x86_64": """
    read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 lseek=8 mmap=9 mprotect=10 munmap=11 brk=12
    rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 pread64=17 pwrite64=18 readv=19 writev=20 access=21
    sched_yield=24 mremap=25 madvise=28 dup=32 getpid=39 execve=59 exit=60 uname=63 fcntl=72 fsync=74
    fdatasync=75 ftruncate=77 getcwd=79 chdir=80 rename=82 mkdir=83 link=86 unlink=87 symlink=88 readlink=89
    chmod=90 fchmod=91 umask=95 gettimeofday=96 getrlimit=97 sysinfo=99 getuid=102 getgid=104 geteuid=107
    getegid=108 sigaltstack=131 arch_prctl=158 gettid=186 time=201 futex=202 getdents64=217 set_tid_address=218
    restart_syscall=219 clock_gettime=228 exit_group=231 tgkill=234 openat=257 mkdirat=258 newfstatat=262
    unlinkat=263 renameat=264 linkat=265 symlinkat=266 readlinkat=267 fchmodat=268 faccessat=269
    set_robust_list=273 prlimit64=302 renameat2=316 getrandom=318 execveat=322 statx=332 rseq=334 faccessat2=439
    fchmodat2=452
    """,
    "aarch64": """
    getcwd=17 dup=23 fcntl=25 mkdirat=34 unlinkat=35 symlinkat=36 linkat=37 renameat=38 ftruncate=46
    faccessat=48 chdir=49 fchmod=52 fchmodat=53 openat=56 close=57 getdents64=61 lseek=62 read=63 write=64
    readv=65 writev=66 pread64=67 pwrite64=68 readlinkat=78 newfstatat=79 fstat=80 fsync=82 fdatasync=83 exit=93
    exit_group=94 set_tid_address=96 futex=98 set_robust_list=99 clock_gettime=113 sched_yield=124
    restart_syscall=128 tgkill=131 sigaltstack=132 rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139
    uname=160 getrlimit=163 umask=166 gettimeofday=169 getpid=172 getuid=174 geteuid=175 getgid=176 getegid=177
    gettid=178 sysinfo=179 brk=214 munmap=215 mremap=216 execve=221 mmap=222 mprotect=226 madvise=233
    prlimit64=261 renameat2=276 getrandom=278 execveat=281 statx=291 rseq=293 faccessat2=439 fchmodat2=452
    """,
}


def list_calls(machine: str) -> dict[str, int]:
    """Name and number of each call that is allowed."""
    pairs = (word.partition("=") for word in _CALLS[machine].split())
    return {name: int(number) for name, _, number in pairs}


def make_filter(machine: str) -> bytes:
    """The filter's program for a machine of this name (uname -m); OSError for one whose calls are not listed here."""
    if machine not in ARCHITECTURES:
        raise OSError(ENOSYS, f"the system calls of {machine} are not known here, so ldconfig cannot be confined")
    numbers = list_calls(machine).values()
    # Jumps count the instructions that are left out. The two results lie behind all comparisons.
    count = len(numbers)
    code = [
        _LOAD, 0, 0, _ARCHITECTURE_AT, _EQUAL, 1, 0, ARCHITECTURES[machine], _RETURN, 0, 0, _KILL,
        _LOAD, 0, 0, _NUMBER_AT, _AT_LEAST, count, 0, _X32_BIT]
    for left, number in zip(range(count, 0, -1), numbers, strict=True):
        code += _EQUAL, left, 0, number
    code += _RETURN, 0, 0, _REFUSE, _RETURN, 0, 0, _ALLOW
    return struct.pack("<" + "HBBI" * (len(code) // 4), *code)
