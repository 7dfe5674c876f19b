# SPDX-License-Identifier: Apache-2.0
"""The gate before device numbers, run by a reader of its instructions: who is let through to what.

That the kernel takes the program, and that nobody gets past it, is what a machine shows (tests/qemu/test_early.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from nvrc.machine.gate import program

READ, WRITE, MAKE = 2, 4, 1
CHARACTER, BLOCK = 2, 1
ROOT = (1 << 40) + 0xFFFFFFFF  # whose halves both matter, the lower one as a negative number


COMPUTES: dict[int, Callable[[int, int, int], int]] = {  # what is in the register, in the other one, in the instruction
    0xBF: lambda _into, source, _number: source,
    0xB7: lambda _into, _source, number: number,
    0x57: lambda into, _source, number: into & number,
    0x77: lambda into, _source, number: into >> number,
}
JUMPS: dict[int, Callable[[int, int, int], bool]] = {
    0x15: lambda into, _source, number: into == number,
    0x55: lambda into, _source, number: into != number,
    0x1D: lambda into, source, _number: into == source,
}
LOAD, LOAD_LONG, CALL, EXIT = 0x61, 0x18, 0x85, 0x95


def ask(code: bytes, *, kind: int, access: int, major: int, cgroup: int) -> int:
    """What the program says of one open."""
    instructions = list(struct.iter_unpack("<BBhi", code))
    context = struct.pack("<III", access << 16 | kind, major, 0)
    registers = {0: -1, 1: -1}
    at = 0
    while (now := instructions[at])[0] != EXIT:
        operation, both, jump, number = now
        into, source = both & 15, both >> 4
        at += 1
        if operation == LOAD:
            registers[into] = struct.unpack_from("<I", context, jump)[0]
        elif operation == LOAD_LONG:
            registers[into] = (number & 0xFFFFFFFF) | (instructions[at][3] & 0xFFFFFFFF) << 32
            at += 1
        elif operation == CALL:
            assert number == 80, "bpf_get_current_cgroup_id"
            registers = {**{name: value for name, value in registers.items() if name > 5}, 0: cgroup}
        elif operation in JUMPS:
            at += jump if JUMPS[operation](registers[into], registers[source], number) else 0
        else:
            registers[into] = COMPUTES[operation](registers.get(into, 0), registers.get(source, 0), number)
    return registers[0]


@pytest.mark.parametrize(("kind", "access", "major", "cgroup", "is_let"), [
    pytest.param(CHARACTER, READ | WRITE, 195, 7, False, id="a container opens a GPU"),
    pytest.param(CHARACTER, READ, 195, 7, False, id="a container only reads"),
    pytest.param(CHARACTER, WRITE, 226, 7, False, id="by the other node of it"),
    pytest.param(CHARACTER, READ | WRITE | MAKE, 511, 7, False, id="the last of the numbers"),
    pytest.param(CHARACTER, READ | WRITE, 195, ROOT, True, id="a daemon of PID 1"),
    pytest.param(CHARACTER, READ, 195, ROOT & 0xFFFFFFFF, False, id="half of the number is not it"),
    pytest.param(CHARACTER, MAKE, 195, 7, True, id="a runtime makes the node"),
    pytest.param(CHARACTER, READ | WRITE, 1, 7, True, id="/dev/null"),
    pytest.param(BLOCK, READ | WRITE, 195, 7, True, id="a disk"),
])
def test_who_is_let_through(kind: int, access: int, major: int, cgroup: int, is_let: bool) -> None:
    code = program(ROOT, (195, 226, 511))
    assert ask(code, kind=kind, access=access, major=major, cgroup=cgroup) == int(is_let)


def test_without_numbers_all_is_open() -> None:
    assert ask(program(ROOT, ()), kind=CHARACTER, access=READ, major=195, cgroup=7) == 1
