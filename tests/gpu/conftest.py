# SPDX-License-Identifier: Apache-2.0
"""`./dev gpu-acceptance`: facts of a machine with a real GPU, gathered once, and held against what the lab assumes.

NVRC_GPU_ROOT is another root than "/", for a machine that is only described. What was gathered, and each difference by
the name of its test, goes into the file that NVRC_GPU_FACTS names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu.gathered import Acceptance, Json, facts_of

ROOT = os.environ.get("NVRC_GPU_ROOT", "/")
FACTS = os.environ.get("NVRC_GPU_FACTS", "")


_KEY = pytest.StashKey[Acceptance]()


@pytest.fixture(scope="session")
def root() -> str:
    if not Path(ROOT, "proc/driver/nvidia/version").exists():
        pytest.skip("this machine has no NVIDIA driver (/proc/driver/nvidia/version)")
    return ROOT


@pytest.fixture(scope="session")
def acceptance(root: str, request: pytest.FixtureRequest) -> Acceptance:
    found = Acceptance(facts_of(root))
    request.config.stash[_KEY] = found
    return found


@pytest.fixture(scope="session")
def facts(acceptance: Acceptance) -> Json:
    return acceptance.facts


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    found = item.config.stash.get(_KEY, None)
    if found is not None and report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = crash.message if crash is not None else report.longreprtext
        found.differences[item.nodeid.rpartition("::")[2]] = " ".join(said.split())[:600]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = session.config.stash.get(_KEY, None)
    if found is not None and FACTS:
        document = {**found.facts, "differences": found.differences}
        Path(FACTS).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
