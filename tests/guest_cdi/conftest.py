# SPDX-License-Identifier: Apache-2.0
"""The stand-in NVML library, compiled once and kept in pytest's cache; each test describes its own machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import nvml


@pytest.fixture
def nvml_mock(nvml_standin: Path, tmp_path: Path) -> Callable[[str], nvml.MockNvml]:
    """Call with a description; the library, its log and its state lie in a folder of the test."""
    def describe(text: str) -> nvml.MockNvml:
        return nvml.MockNvml(nvml_standin, tmp_path / "nvml", text)

    return describe


@pytest.fixture
def process_state() -> Iterator[None]:
    """main() of the hooks is a whole program: it clears the environment and sets the mask of new files."""
    environment, mask = dict(os.environ), os.umask(0o077)
    yield
    os.umask(mask)
    os.environ.update(environment)
