# SPDX-License-Identifier: Apache-2.0
"""A gate before device numbers, for everybody whose cgroup is not the root of the tree: bpf(2), one small program.

Attached to the root cgroup it is asked at every open below it, besides whatever a runtime attaches to its containers:
all of them have to agree. Making a node is not opening one, and stays free. The gate holds until it is lifted, and is
PID 1's descriptor and nothing with a name.
"""

from __future__ import annotations

import os
import struct

from guest_cdi.lean.kernel import address
from guest_cdi.lean.libc import SYS_BPF, syscall

BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_DETACH = 5, 8, 9
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI = 15, 6, 2
BPF_FUNC_get_current_cgroup_id = 80
BPF_DEVCG_DEV_CHAR, READ_OR_WRITE = 2, 0b110  # of struct bpf_cgroup_dev_ctx: kind in the low half, access in the high

# Instructions: class, size and operation in one byte; the numbers are those of linux/bpf_common.h.
LOAD_WORD, MOVE, MOVE_NUMBER, AND, SHIFT_RIGHT = 0x61, 0xBF, 0xB7, 0x57, 0x77
IF_EQUAL, IF_NOT_EQUAL, IF_SAME, LOAD_LONG, CALL, EXIT = 0x15, 0x55, 0x1D, 0x18, 0x85, 0x95
KIND_AND_ACCESS, MAJOR = 0, 4  # offsets in the structure

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD = struct.Struct("<IIQQIIQII16sII")
_ATTACH = struct.Struct("<IIII")


def program(root_id: int, majors: tuple[int, ...]) -> bytes:
    """0 refuses, 1 allows. The number of a cgroup is that of its folder's inode."""
    verdict = [
        _op(MOVE, 2, 7), _op(SHIFT_RIGHT, 2, number=16), _op(AND, 2, number=READ_OR_WRITE),
        _op(IF_EQUAL, 2, jump=6),
        _op(CALL, number=BPF_FUNC_get_current_cgroup_id),
        _op(LOAD_LONG, 1, number=_signed(root_id & 0xFFFFFFFF)), _op(0, number=_signed(root_id >> 32)),
        _op(IF_SAME, 0, 1, jump=2),
        _op(MOVE_NUMBER, 0, number=0), _op(EXIT),
        _op(MOVE_NUMBER, 0, number=1), _op(EXIT),
    ]
    allow = [_op(MOVE_NUMBER, 0, number=1), _op(EXIT)]
    tests = [_op(IF_EQUAL, 6, jump=len(majors) - 1 - at + len(allow), number=major) for at, major in enumerate(majors)]
    head = [
        _op(LOAD_WORD, 7, 1, KIND_AND_ACCESS), _op(LOAD_WORD, 6, 1, MAJOR),
        _op(MOVE, 2, 7), _op(AND, 2, number=0xFFFF),
        _op(IF_NOT_EQUAL, 2, jump=len(tests), number=BPF_DEVCG_DEV_CHAR),
    ]
    return b"".join((*head, *tests, *allow, *verdict))


def shut(cgroups: str, majors: tuple[int, ...]) -> int:
    """The descriptor of the gate, which lifts it."""
    code, name = program(os.stat(cgroups).st_ino, majors), b"Apache-2.0\0"
    attributes = _LOAD.pack(BPF_PROG_TYPE_CGROUP_DEVICE, len(code) // _INSTRUCTION.size, address(code), address(name),
                            0, 0, 0, 0, 0, b"nvrc_gate", 0, BPF_CGROUP_DEVICE)
    gate = syscall("bpf", SYS_BPF, BPF_PROG_LOAD, attributes, len(attributes))
    try:
        _attach(BPF_PROG_ATTACH, cgroups, gate, BPF_F_ALLOW_MULTI)
    except OSError:
        os.close(gate)
        raise
    return gate


def lift(cgroups: str, gate: int) -> None:
    _attach(BPF_PROG_DETACH, cgroups, gate, 0)
    os.close(gate)


def _attach(command: int, cgroups: str, gate: int, flags: int) -> None:
    folder = os.open(cgroups, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attributes = _ATTACH.pack(folder, gate, BPF_CGROUP_DEVICE, flags)
        syscall(cgroups, SYS_BPF, command, attributes, len(attributes))
    finally:
        os.close(folder)


def _op(code: int, into: int = 0, source: int = 0, jump: int = 0, number: int = 0) -> bytes:
    """`into`, `source`: registers; `jump` is in instructions, or an offset in the structure."""
    return _INSTRUCTION.pack(code, source << 4 | into, jump, number)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
