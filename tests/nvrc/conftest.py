# SPDX-License-Identifier: Apache-2.0
"""Guests with GPUs for the tests of what is done with NVIDIA's library: the stand-in, compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# NVIDIA's binding and our modules are loaded here so that forked workers have them already, and a test takes milliseconds.
import pynvml  # noqa: F401
import pytest

import guest_cdi.cli
import guest_cdi.prove  # noqa: F401
import nvrc.nvml.requests  # noqa: F401
from fakes.gpu_guest import GpuGuest, MakeGuest


@pytest.fixture
def gpu_guest(nvml_standin: Path, tmp_path: Path) -> Iterator[MakeGuest]:
    """Call with what `GpuGuest` takes; its workers are gone afterwards."""
    guests: list[GpuGuest] = []

    def make(cmdline: str = "", *, gpus: int = 2, on_bus: int | None = None, keys: str = "", text: str = "",
             extension: str = "", shipped_hook: bool = True) -> GpuGuest:
        guests.append(GpuGuest(nvml_standin, tmp_path / str(len(guests)), cmdline, gpus=gpus, on_bus=on_bus, keys=keys,
                               text=text, extension=extension, shipped_hook=shipped_hook))
        return guests[-1]

    yield make
    for guest in guests:
        guest.end()
