# SPDX-License-Identifier: Apache-2.0
"""The image tree and the archive made of it. cpio itself reads the archive where it is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nvrc.vocabulary.paths import LAST
from nvrc_build.after.contents import read_cpio
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.image_path import clean_path
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Entry, Kind, Origin, Tree

BASE = Origin(slice="base")
OTHER = Origin(slice="other", package="pkg")


def small_tree() -> Tree:
    tree = Tree()
    tree.add_folder("/dev", BASE)
    tree.add_console("/dev/console", BASE)
    tree.add_file("/usr/bin/tool", b"abc", OTHER, 0o755)
    tree.add_link("/init", "usr/bin/tool", BASE)
    return tree


def dump(tree: Tree) -> list[str]:
    return [f"{entry.path} {entry.kind.value} {entry.mode:04o} {entry.origin.slice} {entry.target or entry.sha256[:8]}"
            .rstrip() for entry in tree]


def test_every_entry_is_recorded_with_mode_hash_and_slice() -> None:
    assert dump(small_tree()) == [
        "/ folder 0755 implied",
        "/dev folder 0755 base",
        "/dev/console node 0600 base",
        "/init link 0777 base usr/bin/tool",
        "/usr folder 0755 implied",
        "/usr/bin folder 0755 implied",
        "/usr/bin/tool file 0755 other ba7816bf",
    ]


@pytest.mark.parametrize("path", ["", "usr", "/usr/", "//usr", "/usr//bin", "/usr/../etc", "/./usr", "/usr/."])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(BuildError, match="not a plain absolute path"):
        clean_path(path)


def test_what_is_no_file_is_none_in_the_image(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="/x is not a file where it was taken from; leave it out of the slice"):
        Tree().add_file("/x", tmp_path, BASE)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError, match="/x is not a file"):
        Tree().add_file("/x", tmp_path / "pipe", BASE)


@pytest.mark.parametrize("target", ["", "a\nb", "a\x1b[2J"])
def test_a_link_leads_to_one_line_of_text(target: str) -> None:
    with pytest.raises(BuildError, match="link /x has a target that is not one line of text"):
        Tree().add_link("/x", target, BASE)


def test_two_slices_may_agree_but_not_disagree_on_a_file() -> None:
    tree = small_tree()
    tree.add_file("/usr/bin/tool", b"abc", BASE, 0o755)
    assert tree.conflicts == []
    tree.add_file("/usr/bin/tool", b"abd", BASE, 0o755)
    tree.add_file("/usr/bin/tool", b"abc", BASE, 0o644)
    tree.add_file("/init/below", b"", BASE)
    assert tree.conflicts == [
        "slices 'other' and 'base' disagree on /usr/bin/tool: file 0755 ba7816bf8f01 against file 0755 a52d159f262b",
        "slices 'other' and 'base' disagree on /usr/bin/tool: file 0755 ba7816bf8f01 against file 0644 ba7816bf8f01",
        "slice 'base': /init/below lies below /init, which slice 'base' makes a link",
    ]


def test_a_declared_folder_replaces_an_implied_one_and_nothing_else() -> None:
    tree = small_tree()
    tree.add_folder("/usr", BASE, 0o700)
    tree.add_folder("/usr", OTHER, 0o755)
    entry = tree.get("/usr")
    assert entry is not None
    assert (entry.mode, entry.origin) == (0o700, BASE)
    assert tree.conflicts == ["slices 'base' and 'other' disagree on /usr: folder 0700 against folder 0755"]


def test_what_has_a_name_gives_way_to_a_replacement_only() -> None:
    tree = small_tree()
    before = len(tree)
    tree.replace_file("/usr/bin/tool", b"new", BASE)
    assert (len(tree), tree.conflicts) == (before, [])
    found = tree.get("/usr/bin/tool")
    assert found is not None and (found.read(), found.size, found.mode) == (b"new", 3, 0o644)
    tree.add_link("/usr", "opt", OTHER)
    tree.add_folder("/init", OTHER)
    assert tree.conflicts == [
        "slices 'implied' and 'other' disagree on /usr: folder 0755 against link 0777 opt",
        "slices 'base' and 'other' disagree on /init: link 0777 usr/bin/tool against folder 0755"]


def test_only_files_have_a_size_and_only_the_console_has_numbers() -> None:
    assert [(entry.path, entry.size, entry.device) for entry in small_tree() if entry.size or any(entry.device)] == [
        ("/dev/console", 0, (5, 1)), ("/usr/bin/tool", 3, (0, 0))]


def test_slices_that_differ_in_one_attribute_disagree() -> None:
    """All else is the same: what a container gets must not depend on which slice comes last."""
    tree = Tree()
    tree.add_file("/a", b"x", BASE, xattrs=(("security.capability", b"1"),))
    tree.add_file("/a", b"x", OTHER, xattrs=(("security.capability", b"1"),))
    assert tree.conflicts == []
    tree.add_file("/a", b"x", OTHER)
    tree.add_link("/b", "to", BASE)
    tree.add_link("/b", "elsewhere", OTHER)
    assert [conflict.partition(": ")[0] for conflict in tree.conflicts] == [
        "slices 'base' and 'other' disagree on /a", "slices 'base' and 'other' disagree on /b"]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_a_setuid_file_is_a_finding(mode: int) -> None:
    tree = Tree()
    tree.add_file("/usr/bin/su", b"", BASE, mode)
    assert tree.conflicts == ["slice 'base': /usr/bin/su is setuid or setgid"]


def test_a_file_that_every_user_may_write_is_a_finding_and_a_folder_is_none() -> None:
    tree = Tree()
    tree.add_file("/a", b"", BASE, 0o777)
    tree.add_file("/b", b"", BASE, 0o775)
    tree.add_folder("/tmp", BASE, 0o1777)
    tree.add_link("/c", "a", BASE)
    assert tree.conflicts == ["slice 'base': /a can be written by every user"]


def test_the_head_of_a_file_is_read_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdef")
    tree = Tree()
    tree.add_file("/a", b"abcdef", BASE)
    tree.add_file("/b", tmp_path / "x", BASE)
    rows = [entry for entry in tree if entry.kind is Kind.FILE]
    assert [(entry.read_head(3), entry.read(), entry.size) for entry in rows] == [(b"abc", b"abcdef", 6)] * 2
    assert rows[0].sha256 == rows[1].sha256


def test_cpio_bytes_of_one_file() -> None:
    tree = Tree()
    tree.add_file("/a", b"hello", BASE)
    archive = b"".join(write_cpio([entry for entry in tree if entry.kind is Kind.FILE], mtime=1))
    assert archive.startswith(
        b"070701" b"00000001" b"000081A4" b"00000000" b"00000000" b"00000001" b"00000001" b"00000005"
        b"00000000" b"00000000" b"00000000" b"00000000" b"00000002" b"00000000" b"a\0" b"hello\0\0\0" b"070701")
    assert b"TRAILER!!!\0" in archive
    assert len(archive) % 4 == 0


def test_a_file_of_more_than_the_header_can_tell_is_refused() -> None:
    """Nine digits in place of eight make something else of all that follows."""
    large = Entry(path="/x", kind=Kind.FILE, mode=0o644, origin=BASE, size=1 << 32)
    with pytest.raises(BuildError, match="/x has 4294967296 bytes; an initrd can have files of no more than 4294967295"):
        next(write_cpio([large], 0))


def test_equal_trees_give_equal_archives_whatever_the_order_they_were_made_in(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    other = Tree()
    other.add_link("/init", "usr/bin/tool", BASE)
    other.add_file("/usr/bin/tool", tmp_path / "x", OTHER, 0o755)
    other.add_console("/dev/console", BASE)
    other.add_folder("/dev", BASE)
    assert b"".join(write_cpio(small_tree(), 7)) == b"".join(write_cpio(other, 7))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_what_says_that_the_archive_is_whole_is_its_last_entry() -> None:
    """The kernel unpacks in order until it has no more room, and the first program looks for this one."""
    tree = small_tree()
    tree.add_file(LAST, b"x", OTHER)
    tree.add_folder("/var/zzz", BASE)
    archive = b"".join(write_cpio(tree, 0))
    names = [path for path, _, _ in read_cpio(archive)]
    assert names[-1] == LAST
    assert names[:-1] == sorted(names[:-1])


def test_cpio_reads_the_archive() -> None:
    archive = b"".join(write_cpio(small_tree(), 7))
    listing = subprocess.run(["cpio", "-itv", "--quiet"], input=archive, capture_output=True, check=True).stdout
    lines = [line.split() for line in listing.decode().splitlines()]
    assert [(line[0], line[1]) for line in lines] == [
        ("drwxr-xr-x", "2"), ("drwxr-xr-x", "2"), ("crw-------", "1"), ("lrwxrwxrwx", "1"), ("drwxr-xr-x", "2"),
        ("drwxr-xr-x", "2"), ("-rwxr-xr-x", "1")]
    assert lines[3][-3:] == ["init", "->", "usr/bin/tool"]
