# SPDX-License-Identifier: Apache-2.0
"""Guests with GPUs for the tests of what is done with NVIDIA's library: the stand-in, compiled once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import nvml
from fakes.gpu_guest import GpuGuest


@pytest.fixture(scope="session")
def nvml_standin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("the stand-in libnvidia-ml.so.1 is compiled with gcc, which is not installed")
    cache = request.config.cache
    return nvml.build(cache.mkdir("nvml-standin") if cache else tmp_path_factory.mktemp("nvml-standin"))


Guest = Callable[..., GpuGuest]


@pytest.fixture
def gpu_guest(nvml_standin: Path, tmp_path: Path) -> Iterator[Guest]:
    """Call with what `GpuGuest` takes; its workers are gone afterwards."""
    guests: list[GpuGuest] = []

    def make(cmdline: str = "", **described: object) -> GpuGuest:
        guests.append(GpuGuest(nvml_standin, tmp_path / str(len(guests)), cmdline, **described))  # type: ignore[arg-type]
        return guests[-1]

    yield make
    for guest in guests:
        guest.end()
