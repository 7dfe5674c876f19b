# SPDX-License-Identifier: Apache-2.0
"""Known ways out of a container through its hooks, each tried on a naive hook first.

The classes: CVE-2025-23267 (links followed when the library cache is updated), CVE-2024-0132 and CVE-2025-23359
(a directory exchanged between check and use). Mounts, namespaces and environment are in the namespace tests.
Every row shows that the attack works on code that joins paths, and that it does nothing to ours.
"""

from __future__ import annotations

import ctypes
import glob
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from guest_cdi.hooks import compat, ldconf, profile
from guest_cdi.hooks.arguments import parse_calls
from guest_cdi.hooks.root import Root, replace_file

COMPAT_DIRECTORY = "/usr/local/cuda/compat"
RENAME_EXCHANGE = 2
ROUNDS = 400


def naive_write(tree: Path, path: str, content: str, mode: str = "w") -> None:
    """What joins the root and a path and opens the result."""
    place = f"{tree}{path}"
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, mode) as stream:
        stream.write(content)


def naive_link(tree: Path, target: str, path: str) -> None:
    os.makedirs(os.path.dirname(f"{tree}{path}"), exist_ok=True)
    os.symlink(target, f"{tree}{path}")


def ours(*argv: str) -> Callable[[Path], None]:
    def run(tree: Path) -> None:
        (call,) = parse_calls(argv)
        with Root(str(tree)) as root, suppress(OSError):  # a refusal is as good as a harmless effect
            call.action(root)
    return run


def ours_configure(tree: Path) -> None:
    with Root(str(tree)) as root, suppress(OSError):
        ldconf.configure(root, ("/opt/nv",), "x86_64")


def ours_profile(tree: Path) -> None:
    """As the hook does once there is a GPU node, which takes more rights than a test has."""
    with Root(str(tree)) as root, suppress(OSError), root.make_directories(os.path.dirname(profile.PROFILE)) as parent:
        replace_file(parent, os.path.basename(profile.PROFILE), profile.render(1), 0o444)


class Attack(NamedTuple):
    name: str
    link: str
    victim: str
    naive: Callable[[Path], None]
    ours: Callable[[Path], None]


ATTACKS = (
    Attack("parent-of-link", "/usr/lib", "", lambda tree: naive_link(tree, "evil", "/usr/lib/libcuda.so"),
           ours("create-symlinks", "--link", "evil::/usr/lib/libcuda.so")),
    Attack("new-directory-below-link", "/usr", "", lambda tree: naive_link(tree, "evil", "/usr/a/b/libcuda.so"),
           ours("create-symlinks", "--link", "evil::/usr/a/b/libcuda.so")),
    Attack("conf-directory", ldconf.CONF_DIRECTORY, "",
           lambda tree: naive_write(tree, "/etc/ld.so.conf.d/00-nvcr.conf", "/opt/nv"), ours_configure),
    Attack("etc", "/etc", "", lambda tree: naive_write(tree, ldconf.CONF, "include x"), ours_configure),
    Attack("conf-file", ldconf.CONF, "/made", lambda tree: naive_write(tree, ldconf.CONF, "include x"), ours_configure),
    Attack("musl-path", "/etc/ld-musl-x86_64.path", "/secret",
           lambda tree: naive_write(tree, "/etc/ld-musl-x86_64.path", "/opt/nv", "a"), ours_configure),
    Attack("profile-directory", os.path.dirname(profile.PROFILE), "",
           lambda tree: naive_write(tree, profile.PROFILE, "x"), ours_profile),
    Attack("profile-file", profile.PROFILE, "/secret", lambda tree: naive_write(tree, profile.PROFILE, "x"), ours_profile),
    Attack("chmod", "/dev/dri", "", lambda tree: os.chmod(f"{tree}/dev/dri", 0o777),
           ours("chmod", "--mode", "777", "--path", "/dev/dri")),
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the machine, with a file in it."""
    place = tmp_path / "outside"
    place.mkdir(mode=0o700)
    (place / "secret").write_text("guest")
    return place


def snapshot(place: Path) -> list[tuple[str, int, str]]:
    entries = [place, *sorted(place.rglob("*"))]
    return [(str(path), path.lstat().st_mode, os.readlink(path) if path.is_symlink() else
             path.read_text() if path.is_file() else "") for path in entries]


def hostile_tree(top: Path, attack: Attack, outside: Path) -> Path:
    tree = top / "c"
    link = tree / attack.link.lstrip("/")
    link.parent.mkdir(parents=True)
    link.symlink_to(f"{outside}{attack.victim}")
    (tree / "etc").mkdir(exist_ok=True) if attack.link != "/etc" else None
    with suppress(OSError):
        (tree / "etc/alpine-release").write_text("3.20") if attack.link != "/etc" else None
    return tree


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_naive_hook_reaches_out(tmp_path: Path, outside: Path, attack: Attack) -> None:
    before = snapshot(outside)
    attack.naive(hostile_tree(tmp_path, attack, outside))
    assert snapshot(outside) != before


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_our_hook_stays_inside(tmp_path: Path, outside: Path, attack: Attack) -> None:
    before = snapshot(outside)
    attack.ours(hostile_tree(tmp_path, attack, outside))
    assert snapshot(outside) == before


def test_a_library_outside_is_not_looked_at(tmp_path: Path, outside: Path) -> None:
    (outside / "libcuda.so.999.1").touch()
    tree = tmp_path / "c"
    (tree / "usr/local").mkdir(parents=True)
    (tree / "usr/local/cuda").mkdir()
    (tree / "usr/local/cuda/compat").symlink_to(outside)
    assert glob.glob(f"{tree}{COMPAT_DIRECTORY}/libcuda.so.*.*")
    with Root(str(tree)) as root:
        assert compat.find_library(root, COMPAT_DIRECTORY) is None


def naive_checked_link(tree: Path, target: str, path: str, window: Callable[[], None]) -> None:
    """Resolves, checks, and then uses the path again."""
    place = f"{tree}{path}"
    if not os.path.realpath(os.path.dirname(place)).startswith(f"{tree}/"):
        raise PermissionError(place)
    window()
    os.symlink(target, place)


@pytest.fixture
def exchange(tmp_path: Path, outside: Path) -> Callable[[], None]:
    """Swaps, in one system call, the directory /lib of the container and a link that leads out of it."""
    tree = tmp_path / "c"
    (tree / "lib").mkdir(parents=True)
    (tree / "evil").symlink_to(outside)
    libc = ctypes.CDLL(None, use_errno=True)
    pair = os.fsencode(tree / "lib"), os.fsencode(tree / "evil")

    def swap() -> None:
        assert libc.renameat2(-100, pair[0], -100, pair[1], RENAME_EXCHANGE) == 0
    return swap


def test_naive_check_is_out_of_date_when_it_is_used(tmp_path: Path, outside: Path, exchange: Callable[[], None]) -> None:
    naive_checked_link(tmp_path / "c", "evil", "/lib/libcuda.so", window=exchange)
    assert os.readlink(outside / "libcuda.so") == "evil"


@contextmanager
def swapping(exchange: Callable[[], None]) -> Iterator[list[int]]:
    """Exchanges as fast as it can in another thread; the list holds how often."""
    done, count = threading.Event(), [0]

    def work() -> None:
        while not done.is_set():
            exchange()
            count[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield count
    finally:
        done.set()
        thread.join()


@pytest.mark.long
def test_our_hook_wins_every_race(tmp_path: Path, outside: Path, exchange: Callable[[], None]) -> None:
    before = snapshot(outside)
    made = 0
    with swapping(exchange) as count:
        for number in range(20 * ROUNDS):
            if made and number > ROUNDS:
                break
            (call,) = parse_calls(["create-symlinks", "--link", f"evil::/lib/sub{number}/l"])
            with Root(str(tmp_path / "c")) as root, suppress(OSError):
                made += len(call.action(root))
        while not count[0]:
            continue
    assert snapshot(outside) == before
    assert made > 0
