# SPDX-License-Identifier: Apache-2.0
"""The small C programs that guests run in the place of agent and daemons, compiled once, and a root with the agent."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], AbstractContextManager[None]]:
    """The kernel counts the processes of a daemon's user over all guests of this machine. Who uses them all up holds
    `users(LOCK_EX)` meanwhile, every other test `users(LOCK_SH)`. Who waits to be alone lets nobody pass.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # ./dev mutate runs without its fixtures

    @contextmanager
    def hold(how: int) -> Iterator[None]:
        with open(folder / "turnstile", "w") as turnstile, open(folder / "users", "w") as lock:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(lock, how)
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield

    return hold


@pytest.fixture
def alone() -> None:
    """Asked for by a test that uses up a user's processes."""


@pytest.fixture(autouse=True)
def _users_are_shared(request: pytest.FixtureRequest, users: Callable[[int], AbstractContextManager[None]]) -> Iterator[None]:
    with users(fcntl.LOCK_EX if "alone" in request.fixturenames else fcntl.LOCK_SH):
        yield
