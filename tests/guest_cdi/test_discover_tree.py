# SPDX-License-Identifier: Apache-2.0
"""Searching below a driver root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.elf import library_cache
from guest_cdi.discover.tree import LIBRARY_DIRS, Tree, check_name, clean, matches
from guest_cdi.host import FileInfo, Kind, LinuxHost
from guest_cdi.lean.errors import CdiError


@pytest.mark.parametrize(("path", "cleaned"), [
    ("/a/b", "/a/b"), ("//a//b/", "/a/b"), ("/a/./b/.", "/a/b"), ("/a/../b", "/b"), ("/../a", "/a"), ("/", "/"),
    ("/a/.b", "/a/.b"), ("a/b", "a/b"),
])
def test_paths_are_cleaned_by_name(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


@pytest.mark.parametrize(("name", "pattern", "is_match"), [
    ("libcuda.so.1", "libcuda.so.1", True),
    ("libcuda.so.1", "libcuda.so", False),
    ("libcuda.so.580.95.05", "libcuda.so.*.*", True),
    ("libcuda.so.580", "libcuda.so.*.*", False),
    ("libcuda.so..", "libcuda.so.*.*", True),
    ("libnvidia-egl-wayland2.so.1.0", "libnvidia-egl-wayland.so.*.*", False),
    ("libx.so.1", "lib*.so.1", True),
    ("lib.so.1", "lib*.so.1", True),
    ("ibx.so.1", "lib*.so.1", False),
    ("libso.1", "lib*.so.1", False),
    ("gsp_ga10x.bin", "gsp*.bin", True),
    ("gsp_ga10x.bin.xz", "gsp*.bin", False),
    ("a.b", "*.*.*", False),
    ("a.b.c", "*.*.*", True),
    ("aba", "ab*ba", False),
])
def test_patterns(name: str, pattern: str, is_match: bool) -> None:
    assert matches(name, pattern) is is_match


@pytest.fixture
def root(tmp_path: Path) -> Path:
    driver = tmp_path / "driver"
    (driver / "usr/lib64").mkdir(parents=True)
    (driver / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (driver / "lib64").symlink_to("usr/lib64")
    (driver / "usr/lib64/libb.so.1").write_text("")
    (driver / "usr/lib64/liba.so.1").write_text("")
    (driver / "usr/lib64/libdir.so.1").mkdir()
    (driver / "usr/lib64/libgone.so.1").symlink_to("nowhere")
    (driver / "usr/lib/x86_64-linux-gnu/libb.so.1").symlink_to("../../lib64/libb.so.1")
    return tmp_path


def tree(root: Path, *, strict: bool = True, **more: tuple[str, ...]) -> Tree:
    return Tree(LinuxHost(str(root)), "/driver", strict=strict, **more)


def test_files_are_found_directory_by_directory_and_sorted(root: Path) -> None:
    found = tree(root).find(("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib64", "/absent"), "lib*.so.1")
    assert list(found) == ["/driver/usr/lib/x86_64-linux-gnu/libb.so.1", "/driver/usr/lib64/liba.so.1",
                           "/driver/usr/lib64/libb.so.1"]


def test_libraries_are_found_once_whatever_leads_to_them(root: Path) -> None:
    assert tree(root).find_libraries("lib*.so.1") == ("/driver/usr/lib64/liba.so.1", "/driver/usr/lib64/libb.so.1")


def test_own_search_paths_replace_the_usual_ones_and_the_root(root: Path) -> None:
    here = tree(root, search_paths=("/driver/usr/lib/x86_64-linux-gnu",))
    assert here.find_libraries("lib*.so.1") == ("/driver/usr/lib64/libb.so.1",)
    assert here.find_libraries("liba.so.1") == ()
    assert here.library_dirs() == ("/driver/usr/lib/x86_64-linux-gnu",)


@pytest.mark.parametrize(("path", "inside"), [
    ("/driver/usr/lib", "/usr/lib"), ("/driver", "/"), ("/driver2/usr", "/driver2/usr"), ("/usr", "/usr"),
])
def test_paths_inside_the_root_end_at_a_component(root: Path, path: str, inside: str) -> None:
    assert tree(root).inside(path) == inside


def test_the_root_of_the_machine_changes_no_path(root: Path) -> None:
    assert Tree(LinuxHost(str(root)), "//").inside("/driver/x") == "/driver/x"


def test_searched_directories_are_named_on_the_host(root: Path) -> None:
    assert tree(root).library_dirs()[1] == "/driver/usr/lib64"
    assert len(tree(root).library_dirs()) == len(LIBRARY_DIRS)


def add_cache(root: Path, content: bytes) -> None:
    (root / "driver/etc").mkdir()
    (root / "driver/etc/ld.so.cache").write_bytes(content)
    (root / "driver/opt").mkdir()
    (root / "driver/opt/libcuda.so.580.1").write_text("")
    (root / "driver/opt/libcuda.so.1").symlink_to("libcuda.so.580.1")
    (root / "driver/opt/loop.so.1").symlink_to("loop.so.1")


def test_the_cache_is_asked_when_the_directories_have_nothing(root: Path) -> None:
    add_cache(root, library_cache(["/opt/libcuda.so.1", "/opt/libcudagone.so.1", "/opt/libb.so.1"]))
    assert tree(root).find_libraries("libcuda.so.*.*") == ("/driver/opt/libcuda.so.580.1",)
    assert tree(root).find_libraries("libb.so.1") == ("/driver/usr/lib64/libb.so.1",)


def test_a_chain_through_absolute_links_is_followed_in_the_cache(root: Path) -> None:
    add_cache(root, library_cache(["/opt/libcuda.so"]))
    (root / "driver/opt/libcuda.so").symlink_to("/driver/opt/libcuda.so.1")
    assert tree(root).find_libraries("libcuda.so.*.*") == ("/driver/opt/libcuda.so.580.1",)


@pytest.mark.parametrize(("content", "code"), [
    (b"junk" * 20, "E_CDI_LDCACHE"),
    (library_cache(["/opt/loop.so.1"]), "E_CDI_LINK_LOOP"),
])
def test_a_bad_cache_is_an_error_where_it_is_needed(root: Path, content: bytes, code: str) -> None:
    add_cache(root, content)
    assert tree(root, strict=False).find_libraries("loop.so.1") == ()
    assert tree(root).find_libraries("libb.so.1") != ()
    with pytest.raises(CdiError) as caught:
        tree(root).find_libraries("loop.so.1")
    assert caught.value.code == code
    assert "/driver/" in caught.value.what


def test_a_cache_that_is_bad_further_down_is_one_as_well(root: Path) -> None:
    many = library_cache([f"/opt/lib{number}.so" for number in range(99)])
    paths = [48 + 24 * number + 8 for number in range(99)]
    text = many.replace(b"/opt/lib98.so", b"/opt/lib98.so" + b"x" * 2000)
    for at in paths:
        text = text[:at] + text[paths[98]:paths[98] + 4] + text[at + 4:]
    add_cache(root, text)
    assert tree(root, strict=False).find_libraries("lib98.so") == ()
    with pytest.raises(CdiError, match="more text together than the file") as caught:
        tree(root).find_libraries("lib98.so")
    assert caught.value.code == "E_CDI_LDCACHE"


def test_a_chain_that_nothing_can_open_is_not_followed_to_its_end(root: Path) -> None:
    """Each step was looked for among those before: 20,000 took four seconds, and the square of it more."""
    add_cache(root, library_cache(["/opt/chain0.so"]))
    for number in range(300):
        (root / f"driver/opt/chain{number}.so").symlink_to(f"chain{number + 1}.so")
    (root / "driver/opt/chain300.so").write_text("")
    host = Counting(str(root))
    assert Tree(host, "/driver", strict=False).find_libraries("chain*.so") == ()
    assert host.links < 50
    with pytest.raises(CdiError, match="through a loop of links, or too many"):
        tree(root).find_libraries("chain*.so")


class Counting(LinuxHost):
    links = 0

    def read_link(self, path: str) -> str:
        self.links += 1
        return super().read_link(path)


def test_a_link_loop_is_an_error_with_the_path(root: Path) -> None:
    (root / "driver/usr/lib64/libloop.so.1").symlink_to("libloop.so.1")
    assert len(list(tree(root, strict=False).find(("/lib64",), "lib*.so.1"))) == 2
    with pytest.raises(CdiError, match=r"/driver/lib64/libloop\.so\.1 is reached through a loop") as caught:
        list(tree(root).find(("/lib64",), "lib*.so.1"))
    assert caught.value.code == "E_CDI_LINK_LOOP"


class Unreadable:
    """A host on which nothing may be looked at."""

    def lstat(self, path: str) -> FileInfo:
        raise PermissionError(13, "Permission denied", path)

    stat = lstat

    def resolve(self, path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    read_link = resolve

    def scan(self, path: str) -> dict[str, Kind]:
        raise PermissionError(13, "Permission denied", path)

    def open(self, path: str) -> int:
        raise PermissionError(13, "Permission denied", path)


@pytest.mark.parametrize("ask", [
    lambda tree: list(tree.find(("/usr",), "lib*.so")),
    lambda tree: list(tree.find(("/usr",), "lib.so")),
    lambda tree: tree.is_executable("/usr/bin/x"),
    lambda tree: tree.kind("/usr/lib/x"),
    lambda tree: tree.find_libraries("libx.so.1"),
], ids=["directory", "file", "program", "kind", "cache"])
def test_what_may_not_be_looked_at_is_not_absent(ask: object) -> None:
    assert callable(ask)
    assert not ask(Tree(Unreadable(), strict=False))
    with pytest.raises(CdiError, match="Permission denied") as caught:
        ask(Tree(Unreadable()))
    assert caught.value.code == "E_CDI_READ"


def test_a_name_that_is_no_text_is_an_error_only_if_it_is_wanted(root: Path) -> None:
    (root / os.fsdecode(b"driver/usr/lib64/lib\xff.so.1")).write_text("")
    assert list(tree(root).find(("/usr/lib64",), "liba*.so.1")) == ["/driver/usr/lib64/liba.so.1"]
    with pytest.raises(CdiError, match=r"lib\\xff.so.1") as caught:
        list(tree(root).find(("/usr/lib64",), "lib*.so.1"))
    assert caught.value.code == "E_CDI_NAME_ENCODING"
    check_name("/usr/lib64", "libü.so.1")
