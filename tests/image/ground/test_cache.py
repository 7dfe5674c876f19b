# SPDX-License-Identifier: Apache-2.0
"""A stage is there whole or not at all, and is made once for equal inputs."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nvrc_build import pipeline
from nvrc_build.ground.cache import Cache, digest, digest_files
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.holding import Patience

QUIET = Patience(tell=lambda _line: None)


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


@pytest.mark.parametrize("change", [
    pytest.param(lambda made: (made / "bin/tool").write_text("evil"), id="bytes of equal length"),
    pytest.param(lambda made: (made / "bin/tool").chmod(0o4755), id="mode"),
    pytest.param(lambda made: (made / "bin/more").touch(), id="another file"),
    pytest.param(lambda made: (made / "bin/tool").unlink(), id="a file less"),
    pytest.param(lambda made: ((made / "link").unlink(), (made / "link").symlink_to("/etc/shadow")), id="where a link leads"),
    pytest.param(lambda made: (made.parents[1] / "seals" / made.name).unlink(), id="made before there were seals"),
    pytest.param(lambda made: (made.parents[1] / "seals" / made.name).write_bytes(b"\xff"), id="a seal that is none"),
])
def test_a_stage_that_was_changed_is_made_anew(tmp_path: Path, change: Callable[[Path], object]) -> None:
    def make(out: Path) -> None:
        (out / "bin").mkdir()
        (out / "bin/tool").write_text("good")
        (out / "link").symlink_to("bin/tool")

    said: list[str] = []
    change(Cache(tmp_path).get("root", digest("a"), make))
    cache = Cache(tmp_path, said.append)
    made = cache.get("root", digest("a"), make)
    assert (cache.hits, len(said)) == ([], 1)
    assert sorted(path.name for path in made.rglob("*")) == ["bin", "link", "tool"]
    assert ((made / "bin/tool").read_text(), os.readlink(made / "link")) == ("good", "bin/tool")
    assert Cache(tmp_path).get("root", digest("a"), make) == made
    assert [path.name for path in (tmp_path / "stages").iterdir()] == [made.name]


@pytest.mark.parametrize("change", [
    pytest.param(os.mkfifo, id="pipe"), pytest.param(lambda seal: seal.symlink_to("/dev/zero"), id="no end"), pytest.param(Path.mkdir, id="folder"),
])
def test_a_seal_that_is_not_a_file_is_none(tmp_path: Path, change: Callable[[Path], object]) -> None:
    made = Cache(tmp_path).get("s", "key", lambda out: (out / "f").touch())
    seal = tmp_path / "seals" / made.name
    seal.unlink()
    change(seal)
    assert Cache(tmp_path).find(made.name.partition("-")[0], "key") is None
    assert (Cache(tmp_path).get("s", "key", lambda out: (out / "f").touch()) / "f").exists()


@pytest.mark.parametrize("change", [
    pytest.param(lambda stage, other: (stage.rename(other), stage.symlink_to(other)), id="a link to a stage"),
    pytest.param(lambda stage, other: (shutil.rmtree(stage), stage.write_text("x")), id="a file"),
    pytest.param(lambda stage, other: (shutil.rmtree(stage), stage.symlink_to(other)), id="a dangling link"),
    pytest.param(lambda stage, other: (shutil.rmtree(stage), other.mkdir(), (other / "kept").touch(),
                                       stage.with_name(f".unfinished-{stage.name}").symlink_to(other)), id="half a stage that is a link"),
])
def test_what_is_in_the_place_of_a_stage_is_made_anew(tmp_path: Path, change: Callable[[Path, Path], object]) -> None:
    made = Cache(tmp_path / "cache").get("s", "key", lambda out: (out / "f").touch())
    change(made, tmp_path / "other")
    again = Cache(tmp_path / "cache").get("s", "key", lambda out: (out / "f").touch())
    assert [path.name for path in again.iterdir()] == ["f"]
    assert not again.is_symlink()
    assert not (tmp_path / "other").is_dir() or list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("make", [
    pytest.param(lambda lock, victim: lock.symlink_to(victim), id="link"), pytest.param(lambda lock, victim: os.mkfifo(lock), id="pipe"),
    pytest.param(lambda lock, victim: lock.mkdir(), id="folder"),
])
def test_a_lock_that_is_not_a_file_is_neither_followed_nor_waited_for(tmp_path: Path, make: Callable[[Path, Path], object]) -> None:
    """Who holds it writes a name into it."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "victim").write_text("precious")
    make(tmp_path / "locks/archives", tmp_path / "victim")
    with pytest.raises(BuildError, match=r"lock .*/archives is not a file"), Cache(tmp_path, limit_s=1).locked():
        pass
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("name", ["", "stages"])
def test_a_cache_that_others_may_write_is_not_used(tmp_path: Path, name: str) -> None:
    Cache(tmp_path / "cache").get("s", "key", lambda out: (out / "f").touch())
    (tmp_path / "cache" / name).chmod(0o777)
    with pytest.raises(BuildError, match="other accounts can write into the cache"):
        Cache(tmp_path / "cache").get("s", "other", lambda out: (out / "f").touch())


def test_a_cache_that_was_only_copied_is_good(tmp_path: Path) -> None:
    made = Cache(tmp_path / "a").get("root", digest("a"), lambda out: (out / "tool").write_text("good") and None)
    shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True)
    copied = Cache(tmp_path / "b")
    assert (copied.root / "seals" / made.name).read_text() == (tmp_path / "a/seals" / made.name).read_text()
    assert copied.get("root", digest("a"), lambda _out: pytest.fail("made anew")).is_dir()
    assert (copied.root / "seals" / made.name).read_text() != (tmp_path / "a/seals" / made.name).read_text()


def test_times_that_were_set_back_do_not_hide_a_change(tmp_path: Path) -> None:
    made = Cache(tmp_path).get("root", digest("a"), lambda out: (out / "tool").write_text("good") and None)
    before = (made / "tool").stat()
    (made / "tool").write_text("evil")
    os.utime(made / "tool", ns=(before.st_atime_ns, before.st_mtime_ns))
    again = Cache(tmp_path).get("root", digest("a"), lambda out: (out / "tool").write_text("good") and None)
    assert (again / "tool").read_text() == "good"


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
    with Cache(tmp_path).locked():
        assert not left.exists()


def test_what_is_there_is_found_while_another_build_holds_the_lock_and_what_is_not_waits(tmp_path: Path) -> None:
    Cache(tmp_path).get("stage", digest("a"), lambda out: (out / "whole").touch())
    said: list[str] = []

    other = Cache(tmp_path, waiting=said.append, limit_s=0.0)

    def make(out: Path) -> None:
        assert (other.get("stage", digest("a"), lambda _out: None) / "whole").is_file()
        other.get("another", digest("b"), lambda out: (out / "x").touch())
        assert said == []
        with pytest.raises(BuildError, match=rf"stage is being made by .* \(pid {os.getpid()}, at stage\)"):
            other.get("stage", digest("b"), lambda _out: None)
        (out / "made").touch()

    Cache(tmp_path).get("stage", digest("b"), make)
    assert (other.get("stage", digest("b"), lambda _out: None) / "made").is_file()
    assert list((tmp_path / "locks").iterdir()) == []


HOLDER = """
import sys, time
from pathlib import Path
from nvrc_build.ground.cache import Cache
cache = Cache(Path(sys.argv[1]))
def inner(out):
    print("made", flush=True)
    sys.stdin.read()
cache.get("image", "0" * 64, lambda out: cache.get("freeze", "1" * 64, inner))
"""


@pytest.mark.long
def test_one_who_waits_is_told_for_whom_and_what_that_one_does(tmp_path: Path) -> None:
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), "a word"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "made\n"

        def hear(line: str) -> None:
            said.append(line)
            assert holder.stdin is not None
            holder.stdin.close()  # and with that it goes on

        made = Cache(tmp_path, waiting=hear).get("image", "0" * 64, lambda _out: pytest.fail("made twice"))
        assert made.is_dir()
    assert said == [f"waiting for image: -c {tmp_path} a word (pid {holder.pid}, at freeze) makes it"]


def test_a_stage_that_needs_another_one_takes_the_lock_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def outer(out: Path) -> None:
        inner = cache.get("inner", digest("i"), lambda inside: (inside / "x").touch())
        (out / "y").write_text(" ".join(path.name for path in inner.iterdir()))

    assert (cache.get("outer", digest("o"), outer) / "y").read_text() == "x"


def run_publishers(made: list[Path], target: Path, count: int) -> list[BaseException]:
    """Two threads that publish another image in turn, and one that looks whether there is always a whole one."""
    failed: list[BaseException] = []
    stop = threading.Event()

    def publish(start: int) -> None:
        for number in range(start, start + count):
            pipeline.publish(made[number % len(made)], target, "lab", QUIET)

    def look() -> None:
        while not stop.is_set():
            assert target.is_dir()

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def body() -> None:
            try:
                work()
            except BaseException as reason:
                failed.append(reason)
        return threading.Thread(target=body)

    pipeline.publish(made[0], target, "lab", QUIET)
    writers = [guarded(lambda: publish(0)), guarded(lambda: publish(1))]
    reader = guarded(look)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    return failed


@pytest.mark.long
def test_images_published_at_the_same_time_never_leave_a_gap_or_a_mixture(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        made.append(tmp_path / name)
        made[-1].mkdir()
        for part in ("manifest.json", "initrd"):
            (made[-1] / part).write_text(name)
    target = tmp_path / "out/images/lab"
    assert run_publishers(made, target, 40) == []
    assert (target / "initrd").read_text() == (target / "manifest.json").read_text()
    assert sorted(path.name for path in target.parent.iterdir()) == [".lock", "lab"]


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
