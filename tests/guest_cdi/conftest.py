# SPDX-License-Identifier: Apache-2.0
"""The stand-in NVML library, compiled once and kept in pytest's cache; each test describes its own machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import nvml


@pytest.fixture(scope="session")
def nvml_standin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("the stand-in libnvidia-ml.so.1 is compiled with gcc, which is not installed")
    cache = getattr(request.config, "cache", None)     # absent under -p no:cacheprovider
    return nvml.build(cache.mkdir("nvml-standin") if cache else tmp_path_factory.mktemp("nvml-standin"))


@pytest.fixture
def nvml_mock(nvml_standin: Path, tmp_path: Path) -> Callable[[str], nvml.MockNvml]:
    """Call with a description; the library, its log and its state lie in a folder of the test."""
    def describe(text: str) -> nvml.MockNvml:
        return nvml.MockNvml(nvml_standin, tmp_path / "nvml", text)

    return describe
