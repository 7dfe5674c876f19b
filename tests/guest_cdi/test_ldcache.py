# SPDX-License-Identifier: Apache-2.0
"""ld.so.cache as glibc writes it, and as nobody should."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.elf import library_cache
from fakes.examples import times
from guest_cdi.ldcache import CacheError, LibraryCache

PATHS = ("/opt/b/libcuda.so.1", "/opt/a/libcuda.so.1", "/opt/a/libnvidia-ml.so.1")


@pytest.mark.parametrize("old", [False, True], ids=["current format", "behind the old table"])
def test_lists_in_file_order(old: bool) -> None:
    cache = LibraryCache(library_cache(PATHS, old=old))
    assert cache.paths("libcuda") == PATHS[:2]
    assert cache.paths("lib") == PATHS
    assert cache.paths("libEGL") == ()


def test_each_path_once() -> None:
    assert LibraryCache(library_cache([*PATHS, *PATHS])).paths("lib") == PATHS


@pytest.mark.parametrize(("flags", "counts"), [
    (0x0303, True), (0x0501, True), (0x0A03, True),         # x86-64, ppc64le, aarch64
    (0x0003, False), (0x0803, False), (0x0903, False),      # i386, x32, 32-bit ARM
    (0x0300, False), (0x0F03, False),                       # no ELF, unknown architecture
])
def test_only_64_bit_libraries_count(flags: int, counts: bool) -> None:
    assert (LibraryCache(library_cache(PATHS, flags=flags)).paths("lib") == PATHS) is counts


@pytest.mark.skipif(shutil.which("ldconfig", path="/sbin:/usr/sbin") is None, reason="no ldconfig on this machine")
def test_reads_what_ldconfig_writes(tmp_path: Path) -> None:
    """Against the real tool: the libraries of this machine, by its own listing."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    assert ldconfig is not None
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    wanted = [line.rpartition(" => ")[2] for line in listing.splitlines()[1:] if "libc6,x86-64" in line]
    cache = LibraryCache(Path("/etc/ld.so.cache").read_bytes())
    assert [path for path in cache.paths("lib") if "hwcaps" not in path] == list(dict.fromkeys(
        path for path in wanted if "hwcaps" not in path and path.rpartition("/")[2].startswith("lib")))


GOOD = library_cache(PATHS)
DAMAGE = {
    "empty": b"",
    "text": b"include /etc/ld.so.conf.d/*.conf\n" * 4,
    "of another version": GOOD.replace(b"1.1", b"1.2", 1),
    "cut in the header": GOOD[:30],
    "cut in the entries": GOOD[:60],
    "more entries than bytes": GOOD[:20] + struct.pack("<I", 0xFFFFFFFF) + GOOD[24:],
    "old table alone": b"ld.so-1.7.0\0" + struct.pack("<I", 3),
    "old table cut": b"ld.so-1.7.0\0\1",
    "old table beyond the file": b"ld.so-1.7.0\0" + struct.pack("<I", 0xFFFFFFFF) + GOOD,
}


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_refused(data: bytes) -> None:
    with pytest.raises(CacheError):
        LibraryCache(data)


def test_entries_that_point_nowhere_are_passed_over() -> None:
    data = bytearray(library_cache(PATHS))
    struct.pack_into("<I", data, 48 + 8, 0xFFFFFFF0)            # path of the first
    struct.pack_into("<I", data, 48 + 24 + 4, len(data) - 1)    # name of the second: empty
    assert LibraryCache(bytes(data)).paths("lib") == PATHS[2:]


def test_a_text_without_an_end_is_passed_over() -> None:
    assert LibraryCache(library_cache(PATHS)[:-1]).paths("lib") == PATHS[:2]


def test_relative_paths_are_passed_over() -> None:
    assert LibraryCache(library_cache(["libcuda.so.1", PATHS[0]])).paths("lib") == PATHS[:1]


def test_a_long_text_of_many_entries_is_not_read_for_each() -> None:
    """1.2 MB took 5 GB: each of 5,000 entries had the same megabyte."""
    count, text = 20, b"/libcuda.so" + b"x" * 4096 + b"\0"
    head = GOOD[:20] + struct.pack("<II", count, len(text)) + GOOD[28:48]
    rows = struct.pack("<iIIIQ", 0x0303, 48 + 24 * count, 48 + 24 * count, 0, 0) * count
    with pytest.raises(CacheError, match="more text together than the file"):
        LibraryCache(head + rows + text).paths("libcuda")


@pytest.mark.long
@settings(max_examples=times(5))
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=12), st.integers(0, len(GOOD)))
def test_no_damage_is_fatal(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    for content in (bytes(data), bytes(data[:cut])):
        try:
            paths = LibraryCache(content).paths("lib")
        except CacheError:
            continue
        assert all(path.startswith("/") for path in paths)
