# SPDX-License-Identifier: Apache-2.0
"""What pytest is given by tests/conftest.py and fakes/cases.py: a failure names its row, keeps its folder, changes no environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.cases import Case
from fakes.sources import ROOT

TESTS = """
import os

def test_good(tmp_path):
    (tmp_path / "file").write_text("good")

def test_bad(tmp_path):
    (tmp_path / "file").write_text("bad")
    assert False

def test_leaves_a_word_behind():
    os.environ["LEFT_BEHIND"] = "1"
"""


def test_a_failure_names_its_row() -> None:
    with pytest.raises(AssertionError) as caught, Case("a", 1, "\x1b"):
        raise AssertionError
    assert caught.value.__notes__ == ["in the case 'a' 1 '\\x1b'"]


@pytest.mark.long
def test_a_test_that_fails_keeps_its_folder_and_what_changes_the_environment_is_told(tmp_path: Path) -> None:
    for name in ("conftest.py", "fakes"):
        (tmp_path / name).symlink_to(ROOT / "tests" / name)
    (tmp_path / "test_it.py").write_text(TESTS)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", f"--rootdir={tmp_path}",
            f"--basetemp={tmp_path / 'base'}", "test_it.py"]
    done = subprocess.run(argv, cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, check=False)
    assert "1 failed, 2 passed, 1 error" in done.stdout, done.stdout
    assert "the test leaves another environment than it found" in done.stdout
    assert [path.read_text() for path in (tmp_path / "base").rglob("file")] == ["bad"]
