# SPDX-License-Identifier: Apache-2.0
"""Pids are given again once the kernel has counted to its largest. A daemon may have it do so, as often as it likes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from namespace.guest import NAMESPACES, REPOSITORY

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
HERE = Path(__file__).parent
FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var/log", "var/cache")
SOURCES = {"false": "int main(void) { return 1; }\n", "rest": "#include <unistd.h>\nint main(void) { sleep(3); return 0; }\n"}


@pytest.fixture
def root(tmp_path: Path, compiled: Callable[[str], bytes]) -> Path:
    root = tmp_path / "root"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for folder in (tmp_path, root):
        folder.chmod(0o755)
    (root / "bin/pids").write_bytes(compiled("pids"))
    (root / "bin/pids").chmod(0o755)
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.c").write_text(text)
        subprocess.run(["gcc", "-O1", "-static", "-o", root / "bin" / name, tmp_path / f"{name}.c"], check=True)
    return root


def run(root: Path, way: str) -> str:
    """What became of a program that was to get the pid that a daemon wanted it to have."""
    done = subprocess.run(["unshare", *NAMESPACES, sys.executable, HERE / "pids_cell.py", root, way],
                          env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_a_program_does_not_end_as_an_orphan_did_that_had_its_pid(root: Path) -> None:
    """Else whoever is taken over says for the verifier that it accepted, before that one has begun."""
    assert run(root, "verifier") == "E_ATTEST_REFUSED"


@pytest.mark.parametrize("daemon", ["nv-fabricmanager", "nvlsm", "nvidia-persistenced as root"])
def test_what_outlives_a_daemon_signals_nobody_who_got_its_pid(root: Path, daemon: str) -> None:
    """It is root, as the agent and what containers run are; its filter has a pid that is to be its own."""
    assert run(root, daemon) == "status [0]"
