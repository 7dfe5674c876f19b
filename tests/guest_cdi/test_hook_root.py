# SPDX-License-Identifier: Apache-2.0
"""Lookups below a hostile root, with the real kernel."""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path

import pytest

from guest_cdi.hooks import root as confined
from guest_cdi.hooks.root import Root, clean
from guest_cdi.lean.errors import CdiError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("guest")
    (tmp_path / "c").mkdir()
    return tmp_path / "c"


@pytest.mark.parametrize(("path", "expected"), [
    ("a/../b", "/b"), ("/../../b/.", "/b"), ("//a//b/", "/a/b"), ("", "/"), ("/", "/"),
])
def test_clean(path: str, expected: str) -> None:
    assert clean(path) == expected


@pytest.mark.parametrize("target", ["/", "../../../../../..", "/proc/self/root", "{outside}"])
def test_links_stay_inside(tree: Path, target: str) -> None:
    (tree / "link").symlink_to(target.format(outside=tree.parent / "outside"))
    with Root(str(tree)) as root, pytest.raises(OSError, match="secret"):
        root.read("/link/secret", 100)
    with Root(str(tree)) as root, pytest.raises(OSError, match="etc/hostname"):
        root.read("/link/etc/hostname", 100)


def test_a_link_to_the_root_is_the_container_root(tree: Path) -> None:
    (tree / "up").symlink_to("../../../..")
    (tree / "file").write_text("mine")
    with Root(str(tree)) as root:
        assert root.read("/up/up/file", 100) == b"mine"


def test_magic_links_are_refused(tree: Path) -> None:
    # A bind mount of /proc in the container is what makes this reachable; a plain tree has none, so go through ours.
    with Root("/proc") as root, pytest.raises(OSError, match="self/root"):
        root.open("/self/root")


@pytest.mark.parametrize("path", ["/", "/../..", "/proc/self/root", "/proc/self/cwd/../../../../../../../.."])
def test_the_machine_is_no_container(path: str) -> None:
    with pytest.raises(CdiError, match="E_CDI_HOOK_ROOT"):
        Root(path)


@pytest.mark.parametrize("path", ["/no/such/place", "/dev/null", "/a\0b", "/a\ud800"])
def test_no_root(path: str) -> None:
    with pytest.raises(CdiError, match="E_CDI_HOOK_ROOT"):
        Root(path)


def test_make_directories(tree: Path) -> None:
    (tree / "a").mkdir()
    with Root(str(tree)) as root, root.make_directories("/a/b/c", 0o750) as made:
        assert os.fstat(made.fd).st_ino == (tree / "a/b/c").stat().st_ino
    assert ((tree / "a/b").stat().st_mode & 0o777) == 0o750


def test_directories_are_made_for_everybody_to_enter(tree: Path) -> None:
    with Root(str(tree)) as root, root.make_directories("/a/b") as made:
        assert made.path == "/a/b"
    assert [(tree / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]


def test_what_is_opened_has_the_name_that_the_container_knows(tree: Path) -> None:
    (tree / "a").mkdir()
    with Root(str(tree)) as root, root.open("/x/../a/.") as found:
        assert found.path == "/a"


def test_nothing_stays_open_and_nothing_is_inherited(tree: Path) -> None:
    def opened() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    (tree / "file").write_text("x")
    (tree / "etc").symlink_to("gone")
    before = opened()
    with Root(str(tree)) as root:
        with root.open("/file") as found, root.open_regular("/file") as again:
            assert not any(os.get_inheritable(fd) for fd in (root.fd, found.fd, again.fd))
        with root.make_directories("/a/b/c"):
            pass
        root.is_file("/file")
        root.list("/a")
        for fails in (lambda: root.make_directories("/etc/x"), lambda: root.make_directories("/file/x"),
                      lambda: root.open_regular("/a"), lambda: root.read("/file", 0), lambda: root.list("/", limit=0)):
            with pytest.raises(OSError) as raised:
                fails()
            assert raised.value.errno
    with pytest.raises(CdiError):
        Root("/")
    assert opened() == before


def test_a_full_disk_leaves_no_half_of_a_file(tree: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Root(str(tree)) as root, root.open("/") as top:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                confined.create_file(top, "name", b"x" * 100, 0o644)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tree) == []


def test_errors_name_the_whole_path(tree: Path) -> None:
    (tree / "a").mkdir()
    name = "n" * 300
    with Root(str(tree)) as root, root.open("/a") as folder:
        for fails in (lambda: confined.create_file(folder, name, b"", 0o644),
                      lambda: confined.replace_link(folder, name, "x"), lambda: root.make_directories(f"/a/{name}")):
            with pytest.raises(OSError, match="File name too long") as raised:
                fails()
            assert str(raised.value.filename).startswith(f"/a/{name}")


def test_make_directories_through_a_link_ends_in_the_container(tree: Path) -> None:
    (tree / "etc").symlink_to("/../../outside")
    (tree / "outside").mkdir()
    with Root(str(tree)) as root, root.make_directories("/etc/x"):
        pass
    assert (tree / "outside/x").is_dir()
    assert not (tree.parent / "outside/x").exists()


@pytest.mark.parametrize("target", ["/gone", "../gone", "{outside}", "etc"])
def test_make_directories_refuses_a_dangling_link(tree: Path, target: str) -> None:
    (tree / "etc").symlink_to(target.format(outside=tree.parent / "outside/new"))
    with Root(str(tree)) as root, pytest.raises(OSError, match="symbolic links"):
        root.make_directories("/etc/x")
    assert not (tree.parent / "outside/new").exists()


def test_make_directories_refuses_a_file(tree: Path) -> None:
    (tree / "etc").write_text("")
    with Root(str(tree)) as root, pytest.raises(NotADirectoryError):
        root.make_directories("/etc/x")


def test_special_files_are_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with Root(str(tree)) as root:
        with pytest.raises(OSError, match="not a regular file"):
            root.read("/fifo", 10)
        with pytest.raises(OSError, match="not a regular file"):
            root.read("/", 10)


def test_reading_is_bounded(tree: Path) -> None:
    (tree / "big").write_bytes(b"x" * 11)
    with Root(str(tree)) as root:
        assert root.read("/big", 11) == b"x" * 11
        (tree / "small").write_bytes(b"y")
        assert root.read("/small", 1) == b"y"
        with pytest.raises(OSError, match="larger than 10 bytes"):
            root.read("/big", 10)


def test_listing_is_sorted_and_bounded(tree: Path) -> None:
    for name in "cab":
        (tree / name).touch()
    with Root(str(tree)) as root:
        assert root.list("/") == root.list("/", limit=3) == ["a", "b", "c"]
        with pytest.raises(OSError, match="more than 2 entries"):
            root.list("/", limit=2)


def test_is_file(tree: Path) -> None:
    (tree / "etc").mkdir()
    (tree / "etc/debian_version").touch()
    with Root(str(tree)) as root:
        assert root.is_file("/etc/debian_version")
        assert not root.is_file("/etc")
        assert not root.is_file("/etc/alpine-release")


def test_reopen_notices_another_file(tree: Path) -> None:
    # Where /proc is not procfs, /proc/self/fd/N may be anything: the descriptors of two files stand for that here.
    (tree / "a").touch()
    (tree / "b").touch()
    first, second = os.open(tree / "a", os.O_PATH), os.open(tree / "b", os.O_PATH)

    class Swapped(int):
        """Names another descriptor in text than in system calls."""

        def __format__(self, spec: str) -> str:
            return str(second)

    before = os.listdir("/proc/self/fd")
    try:
        with pytest.raises(OSError, match="not the file it was opened as"):
            confined.reopen(Swapped(first), os.O_RDONLY)
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(first)
        os.close(second)


@pytest.mark.parametrize(("refusals", "asked"), [(0, 1), (1, 2), (127, 128), (128, 128), (500, 128)])
def test_a_lookup_that_the_kernel_puts_off_is_repeated_though_not_for_ever(refusals: int, asked: int) -> None:
    attempts: list[None] = []

    def look_up() -> int:
        attempts.append(None)
        if len(attempts) <= refusals:
            raise BlockingIOError
        return 7

    if refusals < 128:
        assert confined.persevere(look_up) == 7
    else:
        with pytest.raises(BlockingIOError):
            confined.persevere(look_up)
    assert len(attempts) == asked


def test_nothing_is_waited_for(tree: Path) -> None:
    (tree / "file").touch()
    with Root(str(tree)) as root, root.open_regular("/file") as found:
        assert fcntl.fcntl(found.fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_temporary_name_cannot_be_guessed() -> None:
    names = {confined.random_name() for _ in range(100)}
    assert (len(names), {len(bytes.fromhex(name)) for name in names}) == (100, {16})


def test_create_never_follows_or_overwrites(tree: Path) -> None:
    (tree / "name").symlink_to(tree.parent / "outside/secret")
    with Root(str(tree)) as root, root.open("/") as top:
        with pytest.raises(FileExistsError):
            confined.create_file(top, "name", b"evil", 0o644)
        confined.replace_file(top, "name", b"mine", 0o444)
    assert (tree / "name").read_bytes() == b"mine"
    assert ((tree / "name").lstat().st_mode & 0o777) == 0o444
    assert (tree.parent / "outside/secret").read_text() == "guest"


def test_a_file_that_is_not_whole_is_nobody_elses_to_read(tree: Path) -> None:
    with Root(str(tree)) as root, root.open("/") as top, pytest.raises(TypeError):
        confined.create_file(top, "name", "no bytes", 0o644)  # type: ignore[arg-type]
    assert (tree / "name").stat().st_mode & 0o777 == 0o600


def test_failed_replacements_leave_nothing(tree: Path) -> None:
    (tree / "name").mkdir()
    with Root(str(tree)) as root, root.open("/") as top:
        with pytest.raises(IsADirectoryError):
            confined.replace_file(top, "name", b"", 0o644)
        with pytest.raises(IsADirectoryError):
            confined.replace_link(top, "name", "x")
        with pytest.raises(OSError, match="File name too long"):
            confined.replace_file(top, "n" * 300, b"", 0o644)
    assert os.listdir(tree) == ["name"]
