# SPDX-License-Identifier: Apache-2.0
"""SONAMEs, of sound files, of damaged ones and of hostile ones."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.elf import shared_object
from fakes.examples import times
from guest_cdi.elf import MAX_DYNAMIC_BYTES, MAX_HEADERS, ElfError, check_loadable, read_soname


def soname_of(content: bytes) -> str | None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_soname(file.fileno())


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize(("segments", "sections"), [(True, False), (True, True), (False, True)])
def test_reads_every_layout(bits: int, order: str, segments: bool, sections: bool) -> None:
    content = shared_object("libcuda.so.1", bits=bits, order=order, segments=segments, sections=sections)
    assert soname_of(content) == "libcuda.so.1"


@pytest.mark.long
def test_a_real_library_agrees_with_an_independent_reader() -> None:
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    path = next(Path("/usr/lib").rglob("libc.so.6"))
    with path.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        wanted = next(getattr(tag, "soname", "") for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_SONAME")
        assert read_soname(file.fileno()) == wanted


def test_a_library_without_a_name() -> None:
    assert soname_of(shared_object()) is None
    assert soname_of(shared_object(sections=False, segments=False)) is None
    assert soname_of(shared_object("")) == ""


def patched(content: bytes, offset: int, layout: str, value: int) -> bytes:
    data = bytearray(content)
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


GOOD = shared_object("libcuda.so.1", sections=False)
BY_SECTIONS = shared_object("libcuda.so.1", segments=False)
DYNAMIC_HEADER = 64 + 56        # the second program header
SECTIONS_AT = struct.unpack_from("<Q", BY_SECTIONS, 40)[0]
STRINGS_SIZE = 16               # "\0libcuda.so.1\0", padded
DYNAMIC_AT = 64 + 2 * 56 + STRINGS_SIZE

DAMAGE = {
    "empty": (b"", "not an ELF file"),
    "text": (b"INPUT(-lcuda)\n", "not an ELF file"),
    "only the magic": (b"\x7fELF", "truncated"),
    "cut in the header": (GOOD[:63], "truncated"),
    "cut in the program headers": (GOOD[:100], "truncated"),
    "cut in the dynamic table": (GOOD[:-10], "truncated"),
    "unknown class": (patched(GOOD, 4, "B", 9), "class or byte order"),
    "unknown byte order": (patched(GOOD, 5, "B", 0), "class or byte order"),
    "headers of another size": (patched(GOOD, 54, "<H", 55), "header table is malformed"),
    "too many headers": (patched(GOOD, 56, "<H", MAX_HEADERS + 1), "header table is malformed"),
    "headers beyond the file": (patched(GOOD, 32, "<Q", 1 << 40), "truncated"),
    "headers beyond what a file can be": (patched(GOOD, 32, "<Q", (1 << 64) - 8), "cannot be read"),
    "a huge dynamic table": (patched(GOOD, DYNAMIC_HEADER + 32, "<Q", MAX_DYNAMIC_BYTES + 16), "too large"),
    "strings in no segment": (patched(GOOD, DYNAMIC_AT + 24, "<Q", 1 << 50), "in no segment"),
    "a name beyond the file": (patched(GOOD, DYNAMIC_AT + 8, "<Q", 1 << 30), "has no end"),
    "a name beyond any file": (patched(GOOD, DYNAMIC_AT + 8, "<Q", (1 << 64) - 1), "cannot be read"),
    "two names": (shared_object("liba.so", "libb.so"), "several SONAMEs"),
    "an endless name": (shared_object("x" * 300), "has no end"),
    "a path for a name": (shared_object("../../etc/passwd"), "not a file name"),
    "a name that is no text": (shared_object(b"lib\xff.so"), "not UTF-8"),
    "a string section that is missing": (patched(BY_SECTIONS, SECTIONS_AT + 64 + 40, "<I", 99), "is missing"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(ElfError, match=message):
        soname_of(content)


def test_no_string_table_at_all() -> None:
    tagless = patched(GOOD, DYNAMIC_AT + 16, "<Q", 0x6FFFFFFF)
    with pytest.raises(ElfError, match="in no segment"):
        soname_of(tagless)


def test_a_pipe_is_no_library() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(ElfError, match="cannot be read"):
            read_soname(reader)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.long
@settings(max_examples=times(5))
@given(st.data())
def test_no_file_is_hostile_enough(data: st.DataObject) -> None:
    """Any bytes at any place of a sound file, and any cut of it: a name or an ElfError, nothing else."""
    content = bytearray(shared_object("libcuda.so.1", bits=data.draw(st.sampled_from([64, 32])),
                                      order=data.draw(st.sampled_from("<>")),
                                      segments=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at:at + 1] = bytes((data.draw(st.integers(0, 255)),))
    cut = data.draw(st.integers(0, len(content)))
    check(bytes(content[:cut] if data.draw(st.booleans()) else content))


@settings(max_examples=times(4))
@given(st.binary(max_size=512))
@example(b"\x7fELF\x02\x01" + b"\xff" * 200)
def test_random_bytes_after_the_magic(tail: bytes) -> None:
    check(b"\x7fELF\x02\x01" + tail)


def check(content: bytes) -> None:
    try:
        name = soname_of(content)
    except ElfError as err:
        assert str(err)
    else:
        assert name is None or ("/" not in name and name.isprintable() and len(name) <= 255)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        with contextlib.suppress(ElfError):
            check_loadable(file.fileno())


def test_a_real_library_is_loadable_and_its_beginning_is_not(tmp_path: Path) -> None:
    content = next(Path("/usr/lib").rglob("libc.so.6")).read_bytes()
    path = tmp_path / "lib.so"
    for cut, said in ((len(content), ""), (len(content) // 2, "truncated"), (4096, "truncated"), (60, "truncated"), (0, "not an ELF")):
        path.write_bytes(content[:cut])
        with path.open("rb") as file:
            if not said:
                check_loadable(file.fileno())
                continue
            with pytest.raises(ElfError, match=said):
                check_loadable(file.fileno())


@pytest.mark.parametrize("content", [GOOD, BY_SECTIONS, shared_object(sections=False, segments=False)])
def test_a_library_without_symbols_is_not_for_the_loader(content: bytes) -> None:
    """glibc's loader follows the missing table and dies."""
    with tempfile.TemporaryFile() as file, pytest.raises(ElfError, match="no symbols"):
        file.write(content)
        file.flush()
        check_loadable(file.fileno())
