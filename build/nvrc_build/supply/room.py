# SPDX-License-Identifier: Apache-2.0
"""How much a folder may hold that is filled from a file of somebody else's, or that a caller gives.

An image of some kilobytes can say that it has files of terabytes, and folders without an end by naming one again and
again. No program that unpacks one counts in sum, so the folder is looked at while it is filled, and at the end.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import find, run

DEEPEST = 64
_REMEDY = "give one that an image can hold"
_EVERY_S, _PAUSES = 0.1, 3  # a look at many files takes long: three quarters of the time are the program's


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an image can hold. A file is no larger than the header of an initrd can tell."""

    size: int = 16 << 30
    members: int = 500_000
    file_size: int = (4 << 30) - 1


def require_room(what: str, folder: Path, room: Room) -> None:
    """`what` is the thing that the folder's content comes from, at the head of a sentence."""
    if excess := _find_excess(folder, room):
        raise BuildError(f"{what} {excess}", _REMEDY)


def watch(what: str, folder: Path, room: Room, clock: Callable[[], float] = time.monotonic) -> Callable[[], None]:
    """To be called again and again while a program writes below `folder`: long looks are seldom ones."""
    due = clock()

    def look() -> None:
        nonlocal due
        begun = clock()
        if begun >= due:
            require_room(what, folder, room)
            ended = clock()
            due = ended + max(_EVERY_S, _PAUSES * (ended - begun))

    return look


def _find_excess(folder: Path, room: Room) -> str:
    size = 0
    for members, (depth, state) in enumerate(_walk(folder), start=1):
        size += max(state.st_size, state.st_blocks * 512) if stat.S_ISREG(state.st_mode) else 0
        if depth > DEEPEST:
            return f"has paths of more than {DEEPEST} folders"
        if members > room.members:
            return f"has more than {room.members} files, folders and links"
        if stat.S_ISREG(state.st_mode) and state.st_size > room.file_size:
            return f"has a file of more than {room.file_size / 1e9:.1f} GB"
        if size > room.size:
            return f"has files of more than {room.size / 1e9:.1f} GB together"
    return ""


def _walk(folder: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Each entry's depth and state, as far as it is still there; no call of itself for a folder in a folder."""
    waiting = [(str(folder), 1)]
    while waiting:
        place, depth = waiting.pop()
        try:
            with os.scandir(place) as entries:
                found = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            continue
        for path, state in found:
            yield depth, state
            if stat.S_ISDIR(state.st_mode):
                waiting.append((path, depth + 1))


def remove(folder: Path) -> None:
    """Of any depth: shutil calls itself for each folder in a folder, on some releases of Python."""
    run([find("rm", "coreutils"), "-rf", "--", folder], what=f"removing {folder.name}")
