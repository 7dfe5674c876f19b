# SPDX-License-Identifier: Apache-2.0
"""Folders of machines: gone with their lab, also when it was killed; never those of a lab that lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvrc_lab.ground.scratch import PREFIX, YOUNG_S, scratch_folder, sweep_folders

LATER_S = YOUNG_S * 2
HOLD = ("from nvrc_lab.ground.scratch import scratch_folder\nimport time\n"
        "with scratch_folder() as folder:\n (folder / '0.sock').write_text('x')\n print(folder, flush=True)\n time.sleep(600)")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a folder, and the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_folder_goes_with_its_machine() -> None:
    with scratch_folder() as folder:
        (folder / "initrd").write_bytes(b"")
        assert folder.name.startswith(PREFIX)
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


BIND = ("import socket\nfrom nvrc_lab.ground.scratch import scratch_folder\nwith scratch_folder() as folder:\n"
        " with socket.socket(socket.AF_UNIX) as made:\n  made.bind(str(folder / '0123456789.sock'))\n"
        "  print(len(list(folder.iterdir())))")


@pytest.mark.long
@pytest.mark.parametrize("depth", [0, 120], ids=["short", "too long for a socket"])
def test_a_socket_fits_into_a_folder_below_any_tmpdir(tmp_path: Path, depth: int) -> None:
    below = tmp_path / ("d" * depth)
    below.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", BIND], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, "TMPDIR": str(below)}, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert list(below.glob(f"{PREFIX}*")) == []


@pytest.mark.long
def test_what_a_killed_lab_left_goes_with_the_next_one(lab: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = lab
    now_s = time.time()
    assert folder not in sweep_folders(now_s + LATER_S)
    assert (folder / "0.sock").exists()
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert folder not in sweep_folders(now_s)  # too young to be judged
    assert folder in sweep_folders(now_s + LATER_S)
    assert not folder.exists()


def test_nothing_else_is_taken(tmp_path: Path) -> None:
    aim = tmp_path / "aim"
    aim.mkdir()
    own = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}"
    for make in (lambda: own.symlink_to(aim), lambda: own.write_text("no folder")):
        make()
        try:
            assert own not in sweep_folders(time.time() + LATER_S)
            assert aim.exists()
        finally:
            own.unlink()
