# SPDX-License-Identifier: Apache-2.0
"""Folders for one machine, which go with it; and those of labs that were killed, which go with the next lab.

Who was killed removes nothing. So each folder is locked for as long as it is in use, and the kernel lets go of the lock
of a process that is no more: a folder that can be locked is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "nvrc-machine-"
# The kernel takes 107 bytes for the path of a socket, and names in the folder need some of them.
LONGEST = 80
# Between its making and its lock a folder looks like nobody's.
YOUNG_S = 60.0


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        held = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Below a long TMPDIR the folder has a short name as well, for as long as this process has it open.
            yield Path(name) if len(os.fsencode(name)) <= LONGEST else Path(f"/proc/{os.getpid()}/fd/{held}")
        finally:
            os.close(held)


def sweep_folders(now_s: float | None = None) -> tuple[Path, ...]:
    """Remove what killed labs of this user have left; tell what it was."""
    now_s = time.time() if now_s is None else now_s
    found = tuple(path for path in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")) if _is_left(path, now_s))
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return found


def _is_left(path: Path, now_s: float) -> bool:
    try:
        state = path.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or now_s - state.st_mtime < YOUNG_S:
            return False
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False  # it goes by itself, or is not ours to look at
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(held)
    return True
