# SPDX-License-Identifier: Apache-2.0
"""System calls that Python does not offer, under the kernel's own constant names. No policy here.

Flags are those of x86_64 and aarch64; the numbers of the calls are in guest_cdi/lean/libc.py.
Follows mount(2), umount2(2), clone3(2), signalfd(2), init_module(2), reboot(2), prctl(2), netdevice(7).
"""

from __future__ import annotations

import errno
import os
import struct

from guest_cdi.lean.kernel import call, call_locked
from guest_cdi.lean.libc import (
    SYS_CLONE3,
    SYS_CLOSE_RANGE,
    SYS_FINIT_MODULE,
    SYS_FSCONFIG,
    SYS_FSOPEN,
    SYS_INIT_MODULE,
    SYS_MOUNT,
    SYS_PRCTL,
    SYS_REBOOT,
    SYS_SIGNALFD4,
    SYS_UMOUNT2,
    SYS_UNSHARE,
    UINT_MAX,
    checked,
    syscall,
)
from nvrc.vocabulary.signals import signal

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_RELATIME = 4096, 1 << 21

FSOPEN_CLOEXEC, FSCONFIG_SET_FLAG = 1, 0
MODULE_INIT_COMPRESSED_FILE = 4

LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2 = 0xFEE1DEAD, 672274793
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC
LINUX_REBOOT_CMD_RESTART = 0x01234567

PR_SET_DUMPABLE = 4

SFD_NONBLOCK, SFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
SIGNALFD_SIGINFO = struct.Struct("<I124x")  # ssi_signo is the first member of 128 bytes

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    syscall(target, SYS_MOUNT, os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode() or None)


def refused_options(fstype: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Options that a file system does not take; fsopen(2), which makes a mount and attaches it nowhere."""
    context = syscall("", SYS_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC)
    try:
        return tuple(option for option in options
                     if call(SYS_FSCONFIG, context, FSCONFIG_SET_FLAG, option.encode(), None, 0) < 0)
    finally:
        os.close(context)


def umount2(target: str, flags: int = 0) -> None:
    syscall(target, SYS_UMOUNT2, os.fsencode(target), flags)


def unshare(flags: int) -> None:
    """Namespaces of this process's own, by CLONE_* flags."""
    syscall("", SYS_UNSHARE, flags)


def signalfd(signals: frozenset[signal.Signals]) -> int:
    """A descriptor that reports `signals`, which must be blocked by the caller."""
    mask = sum(1 << (number - 1) for number in signals)
    return syscall("", SYS_SIGNALFD4, -1, struct.pack("<Q", mask), 8, SFD_NONBLOCK | SFD_CLOEXEC)


def read_signals(descriptor: int) -> list[int]:
    """Every signal pending on a signalfd, by number."""
    found: list[int] = []
    while True:
        try:
            data = os.read(descriptor, SIGNALFD_SIGINFO.size * 16)
        except BlockingIOError:
            return found
        found += [number for (number,) in SIGNALFD_SIGINFO.iter_unpack(data)]


def clone3(flags: int) -> int:
    """Fork with CLONE_* flags: 0 in the child, its pid in the parent. The child must only set itself up and exec."""
    return checked(call_locked(SYS_CLONE3, struct.pack("<8Q", flags, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0), 64))


def close_range(first: int) -> None:
    """Close every descriptor from `first` on."""
    syscall("", SYS_CLOSE_RANGE, first, UINT_MAX, 0)


def forbid_dumps() -> None:
    """Make this process one that is not dumped, nor traced, nor read through /proc. Children are it until they exec."""
    syscall("", SYS_PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0)


def reboot(command: int) -> None:
    syscall("", SYS_REBOOT, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, None)


def init_module(image: bytes, options: str) -> None:
    syscall("", SYS_INIT_MODULE, image, len(image), _option_string(options))


def finit_module(descriptor: int, options: str, flags: int) -> None:
    syscall("", SYS_FINIT_MODULE, descriptor, _option_string(options), flags)


def _option_string(options: str) -> bytes:
    raw = options.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "module options contain a NUL")
    return raw


def ioctl(path: str, request: int, data: bytes) -> bytes:
    """One request with a structure; what the kernel made of it."""
    import fcntl

    buffer = bytearray(data)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, request, buffer, True)
    finally:
        os.close(descriptor)
    return bytes(buffer)


def raise_interface(name: str) -> None:
    """Set IFF_UP on an interface; the kernel gives `lo` its address by itself."""
    import _socket
    import fcntl

    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = struct.pack("16sh22x", name.encode(), 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), flags | IFF_UP | IFF_RUNNING))
    finally:
        sock.close()


def wait_any() -> tuple[int, int] | None:
    """One ended child as (pid, wait status), or None when none has ended."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None
