# SPDX-License-Identifier: Apache-2.0
"""A folder of locked packages is taken as one only when pip has filled it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvrc_lab.ground.locked import install_locked

pytestmark = pytest.mark.long  # makes environments


def test_a_folder_is_filled_once_and_again_for_another_lock(tmp_path: Path) -> None:
    lock = tmp_path / "empty.txt"
    lock.write_text("# nothing\n")
    first = install_locked(lock, tmp_path / "out", "--no-index")
    assert first is not None and install_locked(lock, tmp_path / "out", "--no-index") == first
    lock.write_text("# nothing else\n")
    assert install_locked(lock, tmp_path / "out", "--no-index") not in (None, first)


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    lock = tmp_path / "absent.txt"
    lock.write_text("nvrc-no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    for _ in range(2):
        assert install_locked(lock, tmp_path / "out", "--no-index") is None
