# SPDX-License-Identifier: Apache-2.0
"""Hooks as a runtime starts them, on containers that were made or are changed meanwhile to hang, mislead or break them.

Each ends before a runtime loses patience, in words of one line, and what lies outside is neither read nor changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from guest_cdi.hooks.root import LISTING_LIMIT
from namespace.hooks_cell import HOOK_COMMAND, build, in_cell, make_tree

pytestmark = pytest.mark.namespace

FOLDER, COMPAT = "opt/nv/lib", "usr/local/cuda/compat"
CALLS = (
    ("update-ldcache", "--folder", f"/{FOLDER}"),
    ("create-symlinks", "--link", f"libprobe.so.1::/{FOLDER}/libprobe.so"),
    ("enable-cuda-compat", "--host-driver-version", "550.163.01"),
    ("chmod", "--mode", "755", "--path", "/dev/dri"),
)
# A hook's own deadline is 8 s of a runtime's 10; the machine of the tests is slower than that of a pod.
PATIENCE_S = 25.0
TOO_MANY = LISTING_LIMIT + 1
RENAME_EXCHANGE = 2
SECRET = "what no hook may read"


def exchange(one: Path, other: Path) -> None:
    ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE)


@contextmanager
def meanwhile(change: Callable[[], object]) -> Iterator[None]:
    """Again and again for as long as the hooks run."""
    ended = threading.Event()

    def go() -> None:
        while not ended.is_set():
            with suppress(OSError):
                change()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(tree: Path, *argv: str, state: str = "") -> subprocess.CompletedProcess[str]:
    begun = time.monotonic()
    done = subprocess.run([*HOOK_COMMAND, *argv], input=state or json.dumps({"root": str(tree)}), text=True, errors="backslashreplace",
                          timeout=PATIENCE_S, capture_output=True, check=False, env={"NVIDIA_CTK_DEBUG": "false"})
    assert time.monotonic() - begun < PATIENCE_S
    assert done.returncode in (0, 1, 2), done
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("\n") <= 1 and done.stderr.replace("\n", "").isprintable(), done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


def fifo(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.mkfifo(place)


def node(place: Path, kind: int, major: int, minor: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.mknod(place, kind | 0o666, os.makedev(major, minor))


def many(folder: Path, names: Callable[[int], str], count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        os.mknod(f"{folder}/{names(number)}")


def link(place: Path, target: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def conf(tree: Path, text: str) -> None:
    (tree / "etc/ld.so.conf").write_text(text)


def sparse(place: Path, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as stream:
        stream.truncate(size)


def patterns(tree: Path) -> None:
    """Wildcards of which each could stand for anything, on names that nearly match."""
    many(tree / "x", lambda number: "a" * 240 + f"{number:05}", 3000)
    conf(tree, f"include /x/{'*a' * 40}*b\n")


STILL: dict[str, Callable[[Path], object]] = {
    "pipe-as-the-cache": lambda tree: fifo(tree / "etc/ld.so.cache"),
    "pipe-as-the-half-cache": lambda tree: fifo(tree / "etc/ld.so.cache~"),
    "link-as-the-half-cache": lambda tree: link(tree / "etc/ld.so.cache~", "../../outside/secret"),
    "device-as-the-configuration": lambda tree: node(tree / "etc/ld.so.conf", stat.S_IFCHR, 1, 5),
    "whiteout-as-the-configuration": lambda tree: node(tree / "etc/ld.so.conf", stat.S_IFCHR, 0, 0),
    "pipes-as-libraries": lambda tree: [fifo(tree / FOLDER / f"lib{number}.so.1") for number in range(50)],
    "devices-as-libraries": lambda tree: [node(tree / FOLDER / f"lib{number}.so.1", stat.S_IFCHR, 1, 5) for number in range(50)],
    "library-of-8-TB": lambda tree: sparse(tree / FOLDER / "libhuge.so.1", 8 << 40),
    "more-files-than-a-listing": lambda tree: many(tree / FOLDER, lambda number: f"lib{number}.so.1", TOO_MANY),
    "names-with-line-ends": lambda tree: many(tree / FOLDER, lambda number: f"lib\n{SECRET[:4]}\x1b[2J{number}.so.1", 100),
    "folder-with-a-line-end": lambda tree: (conf(tree, "/x\\\n/y\r/z\x1b[2J\n"), many(tree / "x\\", lambda number: f"{number}", 2)),
    "include-through-proc": lambda tree: conf(tree, "include /proc/self/cwd/../outside/*\ninclude /proc/1/environ\n/proc/self/cwd\n"),
    "links-through-proc": lambda tree: [link(tree / name, f"/proc/self/root{tree.parent}/outside") for name in (COMPAT, "dev/dri", "etc/ld.so.conf.d")],
    "wildcards-without-end": patterns,
    "compat-pipes-and-devices": lambda tree: (fifo(tree / COMPAT / "libcuda.so.999.1"), node(tree / COMPAT / "libcuda.so.999.2", stat.S_IFCHR, 1, 5)),
    "compat-of-more-than-a-listing": lambda tree: many(tree / COMPAT, lambda number: f"libcuda.so.{number}.1", TOO_MANY),
    "compat-of-8-TB": lambda tree: sparse(tree / COMPAT / "libcuda.so.999.1", 8 << 40),
    "a-folder-that-contains-itself": lambda tree: [link(tree / FOLDER / "deep", "."), conf(tree, "".join(f"/{FOLDER}{'/deep' * n}\n" for n in range(39)))],
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text(SECRET)
    return tmp_path / "outside"


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Path:
    found = make_tree(tmp_path, {"etc/debian_version": "12", "etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n", "proc": None, "lib": None,
                                 FOLDER: None, "dev": None})
    build("hooks_probe_library.c", found / FOLDER / "libprobe.so.1", "-shared", "-fPIC", "-Wl,-soname,libprobe.so.1")
    return found


def assert_untouched(outside: Path) -> None:
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.parametrize("name", STILL)
def test_a_container_made_to_hang_or_mislead(tree: Path, outside: Path, name: str) -> None:
    STILL[name](tree)
    for call in CALLS:
        run(tree, *call)
    assert_untouched(outside)


def swap_conf(tree: Path, outside: Path) -> Callable[[], object]:
    fifo(tree / "etc/other")
    return lambda: exchange(tree / "etc/ld.so.conf", tree / "etc/other")


def swap_etc(tree: Path, outside: Path) -> Callable[[], object]:
    link(tree / "other", str(outside))
    return lambda: exchange(tree / "etc", tree / "other")


def swap_folder(tree: Path, outside: Path) -> Callable[[], object]:
    link(tree / "other", "/proc/self/fd")
    return lambda: exchange(tree / FOLDER, tree / "other")


def come_and_go(tree: Path, outside: Path) -> Callable[[], object]:
    def change() -> None:
        (tree / "etc/ld.so.conf").unlink(missing_ok=True)
        (tree / "etc/ld.so.conf.d").mkdir(exist_ok=True)
        for path in (tree / "etc/ld.so.conf.d").iterdir():
            path.unlink()
        (tree / "etc/ld.so.conf.d").rmdir()
    return change


def grow(tree: Path, outside: Path) -> Callable[[], object]:
    def change() -> None:
        with (tree / "etc/ld.so.conf").open("a") as stream:
            stream.write("/x\n" * 10_000)
            if stream.tell() > 4 << 20:
                stream.truncate(0)
    return change


@pytest.mark.parametrize("prepare", [swap_conf, swap_etc, swap_folder, come_and_go, grow], ids=lambda one: one.__name__)
def test_a_container_that_changes_meanwhile(tree: Path, outside: Path, prepare: Callable[[Path, Path], Callable[[], object]]) -> None:
    with meanwhile(prepare(tree, outside)):
        for _ in range(6):
            for call in CALLS[:3]:
                run(tree, *call)
    assert_untouched(outside)


def test_mounts_that_come_and_go_inside(tree: Path, outside: Path) -> None:
    def body() -> None:
        def change() -> None:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree / "etc")], check=True)
            subprocess.run(["umount", "-l", str(tree / "etc")], check=True)

        with meanwhile(change):
            for _ in range(4):
                for call in CALLS[:3]:
                    run(tree, *call)
        for number in range(60):
            (tree / f"m{number}").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree / f"m{number}")], check=True)
        assert run(tree, *CALLS[0]).returncode == 0
        assert len([line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/m" in line]) >= 60

    in_cell(body)
    assert_untouched(outside)


@pytest.mark.parametrize("state", [
    pytest.param("[" * 100_000, id="nested"), pytest.param('{"root": "' + "a/" * 500_000 + '"}', id="long"),
    pytest.param('{"root": "\\ud800"}', id="surrogate"), pytest.param('{"bundle": "/dev", "root": 1}', id="another type"),
    pytest.param('{"root": "/proc/self/root"}', id="this machine"), pytest.param('{"root": "/dev/zero"}', id="device"),
    pytest.param('{"root": "a\\n\\u001b[2J"}', id="line end"),
])
def test_a_state_that_is_none(tree: Path, state: str) -> None:
    assert run(tree, *CALLS[0], state=state).returncode != 0


@pytest.mark.parametrize("make", [
    pytest.param(os.mkfifo, id="pipe"), pytest.param(lambda place: place.symlink_to("/dev/zero"), id="no end"),
    pytest.param(lambda place: sparse(place, 8 << 40), id="8 TB"), pytest.param(Path.mkdir, id="folder"),
])
def test_a_bundle_without_a_configuration(tree: Path, tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "bundle").mkdir()
    make(tmp_path / "bundle/config.json")
    assert run(tree, *CALLS[0], state=json.dumps({"bundle": str(tmp_path / "bundle")})).returncode != 0
