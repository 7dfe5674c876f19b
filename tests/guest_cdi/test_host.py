# SPDX-License-Identifier: Apache-2.0
"""Reading a machine's files, also those of a tree that is not this machine."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from guest_cdi.host import MAX_LINKS, FileInfo, Kind, LinuxHost, read_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/real.so").write_text("x")
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "usr/lib/absolute.so").symlink_to("/usr/lib/real.so")
    (tmp_path / "usr/lib/chain.so").symlink_to("../../lib/absolute.so")
    (tmp_path / "usr/lib/outside").symlink_to("../../../../../../etc")
    (tmp_path / "usr/lib/loop").symlink_to("loop2")
    (tmp_path / "usr/lib/loop2").symlink_to("loop")
    (tmp_path / "usr/lib/gone").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(("path", "canonical"), [
    ("/usr/lib/real.so", "/usr/lib/real.so"),
    ("/lib/real.so", "/usr/lib/real.so"),
    ("/lib/absolute.so", "/usr/lib/real.so"),
    ("/lib/chain.so", "/usr/lib/real.so"),
    ("/lib/../lib/./real.so", "/usr/lib/real.so"),
    ("/../../usr", "/usr"),
    ("/", "/"),
])
def test_links_are_followed_inside_the_root(root: Path, path: str, canonical: str) -> None:
    assert LinuxHost(str(root)).resolve(path) == canonical


@pytest.mark.parametrize(("path", "reason"), [
    ("/usr/lib/loop", errno.ELOOP),
    ("/lib/loop2/below", errno.ELOOP),
    ("/usr/lib/gone", errno.ENOENT),
    ("/usr/lib/outside", errno.ENOENT),     # /etc of the tree, which has none; never that of this machine
    ("/usr/lib/real.so/below", errno.ENOTDIR),
])
def test_what_cannot_be_reached_says_why(root: Path, path: str, reason: int) -> None:
    with pytest.raises(OSError) as caught:
        LinuxHost(str(root)).resolve(path)
    assert caught.value.errno == reason


def test_a_long_chain_of_links_is_a_loop_as_it_is_to_the_kernel(tmp_path: Path) -> None:
    for number in range(MAX_LINKS + 2):
        (tmp_path / f"link{number}").symlink_to(f"link{number + 1}")
    (tmp_path / f"link{MAX_LINKS + 2}").write_text("x")
    with pytest.raises(OSError, match="Too many levels"):
        LinuxHost(str(tmp_path)).resolve("/link0")
    assert LinuxHost(str(tmp_path)).resolve("/link5") == f"/link{MAX_LINKS + 2}"


def test_stat_follows_and_lstat_does_not(root: Path) -> None:
    host = LinuxHost(str(root))
    assert stat.S_ISLNK(host.lstat("/lib/absolute.so").mode)
    assert stat.S_ISREG(host.stat("/lib/absolute.so").mode)
    assert stat.S_ISLNK(host.lstat("/lib").mode)
    assert host.read_link("/lib") == "/usr/lib"


def test_a_directory_is_read_once_and_by_kind(root: Path) -> None:
    host = LinuxHost(str(root))
    first = host.scan("/lib")
    assert first["real.so"] is Kind.FILE
    assert first["absolute.so"] is Kind.LINK
    assert host.scan("/")["usr"] is Kind.DIRECTORY
    (root / "usr/lib/later.so").write_text("x")
    assert host.scan("/usr/lib") is first


def test_this_machine_needs_no_translation(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    host = LinuxHost()
    assert host.lstat("/dev/null") == FileInfo(stat.S_IFCHR | 0o666, 1, 3, 0)
    assert host.stat(str(tmp_path / "file")).mode & stat.S_IFREG
    assert read_file(host, f"{tmp_path}/file") == b"content"


def test_a_file_is_read_up_to_a_limit(root: Path) -> None:
    (root / "usr/lib/big").write_bytes(b"x" * 100)
    host = LinuxHost(str(root))
    assert read_file(host, "/lib/big", limit=100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        read_file(host, "/lib/big", limit=99)


def test_a_fifo_does_not_stop_the_reader(root: Path) -> None:
    os.mkfifo(root / "fifo")
    assert read_file(LinuxHost(str(root)), "/fifo") == b""
