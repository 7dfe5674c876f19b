# SPDX-License-Identifier: Apache-2.0
"""The stand-in NVML library, compiled once and kept in pytest's cache; each test describes its own machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import nvml


@pytest.fixture
def nvml_mock(nvml_standin: Path, tmp_path: Path) -> Callable[[str], nvml.MockNvml]:
    """Call with a description; the library, its log and its state lie in a folder of the test."""
    def describe(text: str) -> nvml.MockNvml:
        return nvml.MockNvml(nvml_standin, tmp_path / "nvml", text)

    return describe
