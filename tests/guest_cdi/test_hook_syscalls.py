# SPDX-License-Identifier: Apache-2.0
"""The filter of system calls, run by an interpreter of the five instructions that it is made of."""

from __future__ import annotations

import os
import re
import struct
from errno import ENOSYS
from pathlib import Path

import pytest

from guest_cdi.hooks.syscalls import ARCHITECTURES, list_calls, make_filter

KILL, REFUSE, ALLOW = 0x80000000, 0x50000 | ENOSYS, 0x7FFF0000
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
# Renamed, or without a number, in the header of the kernel's common table.
SPELLINGS = {"newfstatat": ("newfstatat", "3264_fstatat"), "fstat": ("fstat", "3264_fstat"), "fcntl": ("fcntl", "3264_fcntl"),
             "lseek": ("lseek", "3264_lseek"), "mmap": ("mmap", "3264_mmap"), "ftruncate": ("ftruncate", "3264_ftruncate")}


def judge(program: bytes, number: int, architecture: int) -> int:
    data = {0: number, 4: architecture}
    rows = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        code, yes, no, operand = rows[at]
        at += 1
        match code:
            case 0x20:
                accumulator = data[operand]
            case 0x15:
                at += yes if accumulator == operand else no
            case 0x35:
                at += yes if accumulator >= operand else no
            case 0x06:
                return int(operand)
            case _:
                pytest.fail(f"unknown instruction {code:#x}")


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_listed_is_allowed_and_nothing_else(machine: str) -> None:
    program = make_filter(machine)
    architecture, calls = ARCHITECTURES[machine], list_calls(machine)
    allowed = {number for number in range(1024) if judge(program, number, architecture) == ALLOW}
    assert allowed == set(calls.values())
    assert {judge(program, number, architecture) for number in range(1024) if number not in allowed} == {REFUSE}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_other_tables_of_calls(machine: str) -> None:
    program = make_filter(machine)
    architecture, calls = ARCHITECTURES[machine], list_calls(machine)
    foreign = [0x40000003, 0xC0000028, 0, *(other for name, other in ARCHITECTURES.items() if name != machine)]
    assert {judge(program, number, one) for one in foreign for number in calls.values()} == {KILL}
    assert {judge(program, number | 0x40000000, architecture) for number in range(600)} == {REFUSE}
    assert judge(program, 0xFFFFFFFF, architecture) == REFUSE


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    known = {name: int(number) for name, number in re.findall(r"#define __NR_*(\w+)\s+(\d+)\n", header.read_text())}
    listed = list_calls(machine)
    found = {name: next((known[one] for one in SPELLINGS.get(name, (name,)) if one in known), None) for name in listed}
    assert {name: number for name, number in found.items() if number is not None and number != listed[name]} == {}
    assert {name for name, number in found.items() if number is None} <= {"fchmodat2"}, "newer than the header"


@pytest.mark.parametrize("name", ["open_by_handle_at", "mount", "ptrace", "bpf", "keyctl", "init_module", "setns", "unshare",
                                  "clone", "socket", "prctl", "chroot", "userfaultfd", "chown", "fchownat"])
def test_what_leads_out_is_not_listed(name: str) -> None:
    assert all(name not in list_calls(machine) for machine in ARCHITECTURES)


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(OSError, match="system calls of riscv64 are not known") as caught:
        make_filter("riscv64")
    assert caught.value.errno == ENOSYS


def test_this_machine_is_known() -> None:
    assert make_filter(os.uname().machine)
