# SPDX-License-Identifier: Apache-2.0
"""The functions of guest_cdi/lean/kernel.py where the frozen program's are missing."""

from __future__ import annotations

import ctypes

_libc, _locked_libc = ctypes.CDLL(None, use_errno=True), ctypes.PyDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes | bytearray | None) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *map(_convert, arguments))
    return result if result != -1 else -ctypes.get_errno()


def call_locked(number: int, *arguments: int | bytes | bytearray | None) -> int:
    result: int = _locked_libc.syscall(ctypes.c_long(number), *map(_convert, arguments))
    return result if result != -1 else -ctypes.get_errno()


def address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def give_back() -> None:
    """Only the frozen program has code in its file that it could read again."""


def _convert(argument: int | bytes | bytearray | None) -> ctypes.c_long | ctypes.c_char_p | ctypes.Array[ctypes.c_char]:
    if isinstance(argument, bytearray):
        return (ctypes.c_char * len(argument)).from_buffer(argument)
    return ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_char_p(argument)
