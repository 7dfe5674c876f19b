# SPDX-License-Identifier: Apache-2.0
"""A stage is there whole or not at all, and is made once for equal inputs."""

import os
from pathlib import Path

import pytest

from nvrc_build.cache import Cache, digest, digest_files


def test_a_stage_is_made_once_per_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made: list[Path] = []

    def make(out: Path) -> None:
        made.append(out)
        (out / "file").write_text("x")

    first = cache.get("freeze", digest("a"), make)
    again = cache.get("freeze", digest("a"), make)
    other = cache.get("freeze", digest("b"), make)
    assert (first / "file").read_text() == "x"
    assert first == again != other
    assert len(made) == 2
    assert cache.hits == ["freeze"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_an_interrupted_stage_leaves_nothing_and_is_made_again(tmp_path: Path, failure: type[BaseException]) -> None:
    cache = Cache(tmp_path)

    def stop(out: Path) -> None:
        (out / "half").write_text("x")
        raise failure

    with pytest.raises(failure):
        cache.get("stage", digest("a"), stop)
    assert list((tmp_path / "stages").iterdir()) == []
    made = cache.get("stage", digest("a"), lambda out: (out / "whole").touch())
    assert (made / "whole").is_file()


def test_what_a_killed_build_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / "stages/.unfinished-freeze-0"
    left.mkdir(parents=True)
    with Cache(tmp_path).locked(lambda _line: None):
        assert not left.exists()


def test_old_results_of_a_stage_are_dropped_and_packages_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(8):
        path = cache.get("freeze", digest(str(number)), lambda _out: None)
        os.utime(path, (number, number))
        cache.get("package", digest(str(number)), lambda _out: None, prune=False)
    names = [path.name.split("-")[0] for path in (tmp_path / "stages").iterdir()]
    assert (names.count("freeze"), names.count("package")) == (4, 8)


def test_digests_tell_parts_and_places_apart(tmp_path: Path) -> None:
    assert digest("ab", "c") != digest("a", "bc")
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    assert digest_files((tmp_path / "a",), tmp_path) != digest_files((tmp_path / "b",), tmp_path)
    before = digest_files((tmp_path / "a",), tmp_path)
    (tmp_path / "a").write_text("2")
    assert digest_files((tmp_path / "a",), tmp_path) != before
