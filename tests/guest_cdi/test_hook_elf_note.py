# SPDX-License-Identifier: Apache-2.0
"""The compat note in ELF files that we build here, byte by byte, and in broken ones."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.compat_library import elf, note
from guest_cdi.hooks.elf_note import CompatNote, NoteError, parse_note, read_note

EXPECTED = CompatNote("12.9", (535, 575))


def read(tmp_path: Path, data: bytes) -> CompatNote | None:
    (tmp_path / "lib").write_bytes(data)
    fd = os.open(tmp_path / "lib", os.O_RDONLY)
    try:
        return read_note(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("align", [4, 8])
def test_note_is_found_in_every_layout(tmp_path: Path, bits: int, order: str, align: int) -> None:
    assert read(tmp_path, elf(bits=bits, order=order, align=align)) == EXPECTED


@pytest.mark.parametrize("data", [
    elf(kind=1), elf(name=b".note.other"), elf(note(owner=b"GNU\0")), elf(note(owner=b"")), elf(note(payload=b"")),
    elf()[:58] + struct.pack("<HHH", 64, 0, 0) + elf()[64:],
], ids=["not-a-note", "other-name", "other-owner", "no-owner", "no-payload", "no-sections"])
def test_no_note(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) is None


def patched(offset: int, form: str, value: int) -> bytes:
    data = bytearray(elf())
    struct.pack_into(form, data, offset, value)
    return bytes(data)


SECTION_HEADER = len(elf()) - 2 * 64  # the note's; offsets below are those of Elf64_Shdr and Elf64_Ehdr


@pytest.mark.parametrize(("data", "said"), [
    (b"", "truncated"),
    (b"\x7fELF", "truncated"),
    (b"#!/bin/sh\n" + bytes(60), "not an ELF file"),
    (patched(4, "B", 3), "not an ELF file"),
    (patched(5, "B", 0), "not an ELF file"),
    (elf()[:40], "truncated"),
    (elf()[:-1], "truncated"),
    (patched(40, "<Q", 1 << 63), "impossible size or place"),
    (patched(40, "<Q", 1 << 40), "truncated"),
    (patched(58, "<H", 40), "impossible shape"),
    (patched(60, "<H", 60000), "impossible shape"),
    (patched(62, "<H", 3), "out of range"),
    (patched(SECTION_HEADER + 32, "<Q", 1 << 40), "impossible size or place"),
    (patched(SECTION_HEADER + 64 + 32, "<Q", 1 << 40), "impossible size or place"),
    (patched(SECTION_HEADER + 24, "<Q", 1 << 40), "truncated"),
    (elf(b"short"), "shorter than its header"),
    (elf(note(b"{")), "not JSON"),
    (elf(note(b"[" * 60000)), "not JSON"),
    (elf(note(b"[]")), "not a JSON object"),
    (elf(note(b'{"CUDA Version": 12}')), "wrong type"),
    (elf(note(b'{"Driver": 535}')), "wrong type"),
    (elf(note(b'{"Driver": ["535"]}')), "not numbers"),
])
def test_broken_files_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(NoteError, match=said):
        read(tmp_path, data)


def test_missing_members_are_empty() -> None:
    assert parse_note(note(b'{"Format": 1, "Driver": null}'), "<", 4) == CompatNote("", ())


def test_sizes_that_lie_do_not_reach_outside() -> None:
    # The payload is cut at the end of the section, so an empty one is left, which is no JSON.
    with pytest.raises(NoteError, match="not JSON"):
        parse_note(struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 1) + b"NVIDIA Corporation\0\0", "<", 4)
    assert parse_note(struct.pack("<III", 4, 0xFFFFFFFF, 1) + b"NVIDIA Corporation\0\0", "<", 4) is None


def test_random_damage_is_an_answer_or_a_note_error(tmp_path: Path) -> None:
    chance = random.Random(20)
    base = elf()
    for _ in range(400):
        data = bytearray(base[:chance.randrange(len(base) + 1)] if chance.random() < 0.2 else base)
        for _ in range(chance.randrange(1, 8)):
            if data:
                data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        try:
            found = read(tmp_path, bytes(data))
        except NoteError:
            continue
        assert found is None or all(isinstance(branch, int) for branch in found.driver_branches)


@given(st.binary(max_size=200), st.sampled_from("<>"), st.integers(0, 1 << 64))
def test_any_note_is_an_answer_or_a_note_error(data: bytes, order: str, alignment: int) -> None:
    try:
        found = parse_note(data, order, alignment)
    except NoteError:
        return
    assert found is None or isinstance(found.cuda_version, str)
