# SPDX-License-Identifier: Apache-2.0
"""ELF files that are damaged or made to harm whoever reads them: each is a finding, in little time, and no traceback."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.elves import make_elf, with_versions
from fakes.examples import times
from nvrc_build.ground.errors import BuildError
from nvrc_build.tree.elf import read_needs

BARE = make_elf(["liba.so"], soname="libx.so")
WHOLE = with_versions(BARE, needs={"libc.so.6": ["GLIBC_2.34"]}, defines=["X_1", "X_2"])
PHOFF, SHOFF, PHENTSIZE, PHNUM, SHENTSIZE, SHNUM = 32, 40, 54, 56, 58, 60
NEEDED_VERSIONS = len(WHOLE) - 2 * 64  # the section header of .gnu.version_r


def patched(at: int, value: bytes, data: bytes = WHOLE) -> bytes:
    return data[:at] + value + data[at + len(value):]


FAR = b"\xff" * 8


@pytest.mark.parametrize("data", [
    pytest.param(WHOLE[:40], id="cut in the header"),
    pytest.param(WHOLE[:70], id="cut in the segments"),
    pytest.param(patched(PHOFF, FAR), id="segments beyond every file"),
    pytest.param(patched(SHOFF, FAR), id="sections beyond every file"),
    pytest.param(patched(PHENTSIZE, b"\0\0"), id="segments of no size"),
    pytest.param(patched(SHENTSIZE, b"\0\0\0\0"), id="sections of no size and without a number"),
    pytest.param(patched(PHNUM, b"\xfe\xff"), id="more segments than fit"),
    pytest.param(patched(64 + 56 + 8, FAR, BARE), id="a dynamic segment beyond every file"),
    pytest.param(patched(BARE.index(b"liba.so"), b"\xff\xfe", BARE), id="a name that is no text"),
    pytest.param(patched(NEEDED_VERSIONS + 44, struct.pack("<I", 0xFFFFFFFF), patched(
        struct.unpack_from("<Q", WHOLE, NEEDED_VERSIONS + 24)[0] + 12, bytes(4))), id="billions of versions in one place"),
])
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(BuildError) as caught:
        read_needs(data, "/usr/lib/x")
    assert caught.value.what.startswith("/usr/lib/x is a damaged ELF file: ")
    assert caught.value.what.isprintable()


@pytest.mark.long
def test_many_rows_that_name_one_long_text_are_a_finding() -> None:
    """Half a megabyte became three gigabytes in half a minute."""
    data = bytearray(make_elf(["l" + "x" * 100_000, *["y"] * 1000]))
    dynamic, size = struct.unpack_from("<Q", data, 64 + 56 + 8)[0], struct.unpack_from("<Q", data, 64 + 56 + 32)[0]
    for at in range(dynamic, dynamic + size, 16):
        if data[at] == 1:
            data[at + 8:at + 16] = data[dynamic + 8:dynamic + 16]
    with pytest.raises(BuildError, match="a damaged ELF file: ELFError tables that name the same bytes over and over"):
        read_needs(bytes(data), "/usr/lib/x")


@pytest.mark.long
@settings(max_examples=times(5))
@given(st.lists(st.tuples(st.integers(20, len(WHOLE) - 1), st.integers(0, 255)), max_size=8), st.integers(20, len(WHOLE)))
def test_any_damage_is_a_finding_or_none(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE[:cut])
    for at, value in changes:
        data[at:at + 1] = bytes((value,))
    try:
        read_needs(bytes(data), "/usr/lib/x")
    except BuildError as err:
        assert "damaged ELF file" in err.what
