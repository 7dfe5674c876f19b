# SPDX-License-Identifier: Apache-2.0
"""The filters of system calls, run as the kernel runs them, against what the table says in words."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvrc.machine.calls import ARCHITECTURES, make_filter, refused_calls
from nvrc.machine.confine import find_filter, name_itself
from nvrc.machine.rights import Calls
from nvrc.pages.filters import render_filters

OWN_PID = 4711
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
# As asm/unistd.h has them: the first of each pair on x86-64, the second on aarch64.
NUMBERS = {"clone": (56, 220), "clone3": (435, 435), "fcntl": (72, 25), "ioctl": (16, 29), "socket": (41, 198), "kill": (62, 129),
           "tgkill": (234, 131), "tkill": (200, 130), "pidfd_send_signal": (424, 424), "execve": (59, 221), "read": (0, 63),
           "openat": (257, 56), "futex": (202, 98), "mount": (165, 40), "bpf": (321, 280), "ptrace": (101, 117),
           "io_uring_setup": (425, 425), "madvise": (28, 233), "listns": (470, 470), "open_by_handle_at": (304, 265), "setsid": (112, 157),
           "io_setup": (206, 0)}
MACHINES = ("x86_64", "aarch64")


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), architecture: int = ARCHITECTURES["x86_64"]) -> int:
    """Classic BPF over struct seccomp_data, as far as such filters use it; a jump only goes forward."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(*arguments, *(0,) * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    at = loaded = 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            (loaded,) = struct.unpack_from("<I", data, value)
        elif operation == 0x05:
            at += value
        else:
            at += yes if {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[operation] else no


def judge(machine: str, calls: Calls, name: str, *arguments: int) -> int:
    return run(name_itself(find_filter(machine, calls.name), OWN_PID), NUMBERS[name][MACHINES.index(machine)], arguments, ARCHITECTURES[machine])


ANSWERS: tuple[tuple[Calls, str, tuple[int, ...], int], ...] = (
    *((calls, name, (), EPERM) for calls in Calls for name in ("mount", "bpf", "ptrace", "io_uring_setup", "io_setup", "open_by_handle_at",
                                                                    "listns")),
    *((calls, name, (), ALLOW) for calls in Calls for name in ("read", "openat", "futex")),
    *((calls, "clone3", (), ENOSYS) for calls in Calls),
    *((calls, "kill", (pid,), EPERM) for calls in Calls for pid in (1, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)),
    (Calls.DAEMON, "kill", (77,), ALLOW), (Calls.ALONE, "kill", (77,), EPERM), (Calls.WORKER, "kill", (77,), EPERM),
    *((calls, "kill", (OWN_PID,), ALLOW) for calls in Calls if calls is not Calls.SILENT),
    *((Calls.SILENT, name, (pid,), EPERM) for name in ("kill", "tgkill", "tkill") for pid in (OWN_PID, 77, 0)),
    (Calls.SILENT, "pidfd_send_signal", (3,), EPERM), (Calls.SILENT, "clone", (17,), ALLOW), (Calls.SILENT, "execve", (), ALLOW),
    *((calls, "setsid", (), EPERM) for calls in (Calls.ALONE, Calls.SINGLE, Calls.WORKER)),
    *((calls, "setsid", (), ALLOW) for calls in (Calls.DAEMON, Calls.SILENT)),
    (Calls.ALONE, "tgkill", (77, 77), EPERM), (Calls.ALONE, "tgkill", (OWN_PID, 77), ALLOW), (Calls.ALONE, "tkill", (OWN_PID,), EPERM),
    (Calls.ALONE, "pidfd_send_signal", (3,), EPERM), (Calls.DAEMON, "pidfd_send_signal", (3,), ALLOW),
    *((calls, "clone", (0x00010F00,), ALLOW) for calls in Calls),        # a thread
    *((calls, "clone", (0x10000000 | 0x00010F00,), EPERM) for calls in Calls),   # with a user namespace
    (Calls.DAEMON, "clone", (17,), ALLOW), (Calls.ALONE, "clone", (17,), ALLOW), (Calls.WORKER, "clone", (17,), EPERM),
    (Calls.SINGLE, "clone", (17,), EPERM), (Calls.SINGLE, "execve", (), ALLOW), (Calls.SINGLE, "tkill", (OWN_PID,), EPERM),
    (Calls.DAEMON, "execve", (), ALLOW), (Calls.WORKER, "execve", (), EPERM),
    *((calls, "socket", (family,), EPERM) for calls in Calls for family in (38, 40)),
    *((calls, "socket", (family,), ALLOW) for calls in Calls for family in (1, 2, 10)),
    *((calls, "socket", (16, 3, protocol), EPERM) for calls in Calls for protocol in (11, 15)),
    *((calls, "socket", (16, 3, protocol), ALLOW) for calls in Calls for protocol in (0, 9, 16)),
    *((calls, "socket", (1, 3, protocol), ALLOW) for calls in Calls for protocol in (11, 15)),
    *((calls, "madvise", (0, 4096, advice), EPERM) for calls in Calls for advice in (100, 101)),
    *((calls, "madvise", (100, 101, advice), ALLOW) for calls in Calls for advice in (0, 4, 14, 21)),
    *((calls, "fcntl", (3, command), EPERM) for calls in Calls for command in (8, 10, 15, 1024, 1040)),
    *((calls, "fcntl", (3, command), ALLOW) for calls in Calls for command in (1, 2, 3, 4, 1025, 1039)),
    *((calls, "ioctl", (3, request), EPERM) for calls in Calls for request in (
        0x5412, 0x541C, 0x8901, 0xC0045877, 0x8004587D, 0x40045201, 0x40085203, 0x5204, 0x5206, 0x5207)),
    *((calls, "ioctl", (3, request), ALLOW) for calls in Calls for request in (0x5401, 0xC020462A, 0x80045200)),
)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_call_is_answered(machine: str) -> None:
    assert [(calls, name, arguments) for calls, name, arguments, answer in ANSWERS
            if judge(machine, calls, name, *arguments) != answer] == []


@pytest.mark.parametrize("calls", Calls)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_refused_call_is_refused_and_another_abi_kills(machine: str, calls: Calls) -> None:
    program, here = make_filter(machine, calls, OWN_PID), ARCHITECTURES[machine]
    assert {run(program, number, (), here) for number in refused_calls(machine).values()} == {EPERM}
    assert run(program, 0, (), here ^ 1) == KILL
    assert run(program, 0x40000000 | 165, (), here) == KILL
    assert len(program) // 8 < 4096


def test_what_pid_1_has_is_what_the_lists_make() -> None:
    assert Path("nvrc/machine/filters.py").read_text(encoding="ascii") == render_filters(), (
        "python -m nvrc.pages.filters > nvrc/machine/filters.py")
    for machine in MACHINES:
        for calls in Calls:
            assert name_itself(find_filter(machine, calls.name), OWN_PID) == make_filter(machine, calls, OWN_PID)


def test_a_machine_whose_calls_are_not_listed_confines_nothing() -> None:
    with pytest.raises(OSError, match="the system calls of riscv64 are not listed here"):
        find_filter("riscv64", Calls.DAEMON.name)


@given(st.integers(0, 600), st.sampled_from(list(Calls)), st.tuples(*[st.integers(0, (1 << 64) - 1)] * 6))
def test_whatever_is_called_the_filter_answers(number: int, calls: Calls, arguments: tuple[int, ...]) -> None:
    answer = run(make_filter("x86_64", calls, OWN_PID), number, arguments)
    assert answer in (ALLOW, EPERM, ENOSYS)
    assert answer == EPERM or number not in refused_calls("x86_64").values()
