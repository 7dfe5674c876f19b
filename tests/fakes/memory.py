# SPDX-License-Identifier: Apache-2.0
"""Whether a folder in memory can hold what tests write, and the programs that they start there."""

from __future__ import annotations

import os

MEMORY = "/dev/shm"


def has_room(folder: str) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK) and not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > 1 << 30
