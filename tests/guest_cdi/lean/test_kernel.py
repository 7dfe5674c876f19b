# SPDX-License-Identifier: Apache-2.0
"""System calls by ctypes, as they are made everywhere but in the frozen program, whose own function every boot uses."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Callable

import pytest

from guest_cdi.lean import by_ctypes
from guest_cdi.lean.kernel import address, call, call_locked
from guest_cdi.lean.libc import SYS_CLOSE_RANGE, SYS_FSTATFS, SYS_OPENAT2, UINT_MAX, syscall


@pytest.mark.parametrize("make", [call, call_locked])
def test_numbers_go_in_and_errors_come_out_negative(make: Callable[..., int]) -> None:
    assert make(SYS_CLOSE_RANGE, UINT_MAX, UINT_MAX, 0) == 0
    assert make(SYS_CLOSE_RANGE, 2, 1, 0) == -errno.EINVAL
    assert make(SYS_OPENAT2, -1, None, None, 0) == -errno.EINVAL


def test_a_buffer_is_filled() -> None:
    buffer = bytearray(256)
    with tempfile.TemporaryFile() as stream:
        assert call(SYS_FSTATFS, stream.fileno(), buffer) == 0
        assert buffer[8:16] == os.fstatvfs(stream.fileno()).f_bsize.to_bytes(8, "little")


def test_an_error_says_what_it_was_about() -> None:
    with pytest.raises(IsADirectoryError, match="'the folder'"):
        syscall("the folder", SYS_OPENAT2, -100, b"/", (os.O_RDWR | os.O_CLOEXEC).to_bytes(8, "little") + bytes(16), 24)


def test_an_address_is_that_of_the_bytes() -> None:
    kept = b"kept by the caller"
    assert ctypes.string_at(address(kept)) == kept
    assert by_ctypes.address is address
