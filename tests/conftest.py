# SPDX-License-Identifier: Apache-2.0
"""Property tests are the same on every run and on every machine: a fixed seed, no clock, nothing kept on disk.

While working each is asked for 12 examples; `./dev test` and `./dev mutate` ask with --hypothesis-profile=thorough.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import signal
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from fakes import nvml
from fakes.memory import MEMORY, has_room

NUMBERS = itertools.count()
FOUND = pytest.StashKey[Mapping[bytes, bytes]]()
FIXED = settings(derandomize=True, database=None, deadline=None)
settings.register_profile("quick", FIXED, max_examples=12)
settings.register_profile("thorough", FIXED, max_examples=60)
settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected lasts to the end. Searching it for garbage would take a third of collecting it, and go on; of
    what tests leave the most is gone with its last reference."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        gc.enable()


TIERS = ("namespace", "qemu", "gpu")  # each has a folder, and nothing else is in there


def pytest_configure(config: pytest.Config) -> None:
    """Folders of tests lie in memory, machines' aside: they hold small files by the thousand, and programs. An interrupt
    interrupts, wherever pytest was started."""
    if not set(re.findall(r"(?<!not )\b\w+", config.option.markexpr)) & {*TIERS} and has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job has it, and every program that it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A folder whose tests would all be left out is not read: every worker would load each of its files for nothing."""
    name, of_a_tier = collection_path.name, collection_path.parent == Path(__file__).parent
    return True if of_a_tier and name in TIERS and f"not {name}" in config.option.markexpr else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.stash[FOUND] = environment()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """What a test leaves in the environment fails others, far away and in some orders only."""
    yield
    assert environment() == item.stash[FOUND], "the test leaves another environment than it found"


def environment() -> Mapping[bytes, bytes]:
    """As os.environ keeps it. To have each name and value decoded twice for each test took a second and a half."""
    kept: dict[bytes, bytes] = vars(os.environ)["_data"]
    return {name: value for name, value in kept.items() if not name.startswith(b"PYTEST_")}


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As pytest's own, which resolves where the folder lies, and leaves a link to the newest of each name."""
    name, failed = re.sub(r"\W", "_", request.node.name)[:30], request.session.testsfailed
    folder = tmp_path_factory.getbasetemp() / f"{name}{next(NUMBERS)}"
    folder.mkdir(mode=0o700)
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def nvml_standin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in libnvidia-ml.so.1, compiled once and kept in pytest's cache."""
    if shutil.which("gcc") is None:
        pytest.skip("the stand-in libnvidia-ml.so.1 is compiled with gcc, which is not installed")
    cache = getattr(request.config, "cache", None)  # absent under -p no:cacheprovider
    return nvml.build(cache.mkdir("nvml-standin") if cache else tmp_path_factory.mktemp("nvml-standin"))


@pytest.fixture(scope="session")
def nscq_standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in libnvidia-nscq.so.2: one file, compiled in a tenth of a second."""
    if shutil.which("gcc") is None:
        pytest.skip("the stand-in libnvidia-nscq.so.2 is compiled with gcc, which is not installed")
    return nvml.build_nscq(tmp_path_factory.mktemp("nscq-standin"))
