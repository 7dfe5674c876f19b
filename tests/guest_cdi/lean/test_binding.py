# SPDX-License-Identifier: Apache-2.0
"""The stand-ins for functools, threading and string do what nvidia-ml-py takes them for."""

from __future__ import annotations

import functools
import string

import pytest

from guest_cdi.lean import binding


@pytest.mark.parametrize("text", ["UNINITIALIZED", "GPU_IS_LOST", "", "_", "A__B", "already_Initialized"])
def test_capwords(text: str) -> None:
    assert binding.string.capwords(text, "_") == string.capwords(text, "_")


def test_a_lock_is_a_lock() -> None:
    with binding.threading.Lock() as is_held:
        assert is_held is True


def test_a_wrapper_is_called_what_it_wraps() -> None:
    def nvml_call() -> None: ...

    ours, theirs = ((lambda: None) for _ in range(2))
    assert binding.wraps(nvml_call)(ours) is ours
    assert ours.__name__ == functools.wraps(nvml_call)(theirs).__name__ == "nvml_call"
