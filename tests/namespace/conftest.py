# SPDX-License-Identifier: Apache-2.0
"""The small C programs that guests run in the place of agent and daemons, compiled once, and a root with the agent."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A program by its name, which is that of its source here."""
    @cache
    def build(name: str) -> bytes:
        program = tmp_path_factory.mktemp(name) / name
        subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-array-bounds", "-o", program,
                        Path(__file__).with_name(f"{name}.c")], check=True)
        return program.read_bytes()

    return build


@pytest.fixture
def guest_root(tmp_path: Path, compiled: Callable[[str], bytes]) -> FakeSystem:
    system = bare_guest(str(tmp_path))
    system.put("/proc/self/oom_score_adj")  # for an agent without a /proc of its own
    system.put("/usr/bin/kata-agent", compiled("agent"), 0o755)
    return system
