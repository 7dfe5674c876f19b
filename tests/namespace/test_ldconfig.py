# SPDX-License-Identifier: Apache-2.0
"""An ldconfig that a library of the extension has taken over: what it leaves behind, and what of it reaches others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from namespace.guest import NAMESPACES, REPOSITORY

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
HERE = Path(__file__).parent
FOLDERS = ("dev", "etc", "proc", "run", "sbin", "sys", "tmp")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o", tmp_path / "sbin/ldconfig", HERE / "ldconfig.c"],
                   check=True)
    (tmp_path / "etc/ld.so.cache").write_text("")
    (tmp_path / "etc/secret").write_text("secret")
    return tmp_path


def join(root: Path, word: str) -> list[str]:
    (root / "etc/ldconfig").write_text(word)
    done = subprocess.run(["unshare", *NAMESPACES, sys.executable, HERE / "ldconfig_cell.py", root],
                          env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_cache_is_taken(root: Path) -> None:
    assert join(root, "cache") == ["joined", "cache cache", "processes 0"]


def test_what_is_no_file_is_no_cache(root: Path) -> None:
    refused, *rest = join(root, "link")
    assert refused.startswith("refused /sbin/ldconfig made no /run/nvrc-ldconfig/ld.so.cache: ")
    assert rest == ["processes 0"]


def test_no_process_stays_behind(root: Path) -> None:
    """It would see all that comes into the folder that it may write."""
    assert join(root, "stay") == ["joined", "cache cache", "processes 0"]


def test_it_puts_nothing_where_pid_1_writes(root: Path) -> None:
    assert join(root, "plant") == ["joined", "cache cache", "processes 0"]
