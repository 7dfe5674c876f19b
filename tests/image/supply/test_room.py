# SPDX-License-Identifier: Apache-2.0
"""What a folder may hold: every bound by itself, and a folder that changes while it is looked at."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.supply.room import Room, remove, require_room, watch

ROOM = Room(size=10_000_000, members=6, file_size=4_000_000)


def holes(place: Path, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    os.truncate(place, size)


def test_what_fits_fits(tmp_path: Path) -> None:
    for number in range(2):
        holes(tmp_path / f"a/{number}", 4_000_000)
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "round").symlink_to(".")
    require_room("it", tmp_path, ROOM)
    require_room("it", tmp_path / "gone", ROOM)


@pytest.mark.parametrize(("sizes", "words"), [
    ({"a": 4_000_001}, "it has a file of more than 0.0 GB"),
    ({"a": 4_000_000, "b/c": 4_000_000, "b/d": 4_000_000}, "it has files of more than 0.0 GB together"),
    (dict.fromkeys("abcdefg", 0), "it has more than 6 files, folders and links"),
    ({f"{'d/' * 64}x": 0}, "it has paths of more than 64 folders"),
], ids=["a file", "all", "members", "deep"])
def test_each_bound(tmp_path: Path, sizes: dict[str, int], words: str) -> None:
    for name, size in sizes.items():
        holes(tmp_path / name, size)
    room = Room(size=ROOM.size, members=99 if "paths" in words else ROOM.members, file_size=ROOM.file_size)
    with pytest.raises(BuildError, match=f"{words}; give one that an image can hold"):
        require_room("it", tmp_path, room)


def test_a_watch_looks_at_once_and_the_longer_that_takes_the_later_again(tmp_path: Path) -> None:
    times = iter((0.0, 0.0, 2.0, 7.9, 8.0))
    look = watch("it", tmp_path, Room(members=0), clock=lambda: next(times))
    look()
    holes(tmp_path / "a", 1)
    look()
    with pytest.raises(BuildError, match="it has more than 0 files"):
        look()


def test_a_folder_of_any_depth_is_removed(tmp_path: Path) -> None:
    before, depth = os.getcwd(), sys.getrecursionlimit() + 200
    (tmp_path / "deep").mkdir()
    os.chdir(tmp_path / "deep")
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)
    with pytest.raises(BuildError, match="more than 64 folders"):
        require_room("it", tmp_path, Room())
    remove(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []
