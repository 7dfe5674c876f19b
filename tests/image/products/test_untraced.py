# SPDX-License-Identifier: Apache-2.0
"""What is taken out of a module for the sake of its loading, and that it can be put back to the byte."""

from __future__ import annotations

import io
import struct

import pytest
from elftools.elf.elffile import ELFFile

from fakes.elves import make_module, make_traced_module
from nvrc.vocabulary.needs import CHANGED_BYTES
from nvrc_build.products.untraced import untrace

CALL, NOP = "e800000000", "0f1f440000"
PLT32, PC32, NONE, ABSOLUTE = 4, 2, 0, 1


def put_back(data: bytes, changed: bytes) -> bytes:
    whole = bytearray(data)
    for at, byte in CHANGED_BYTES.iter_unpack(changed):
        whole[at] = byte
    return bytes(whole)


def content(elf: ELFFile, name: str) -> bytes:
    section = elf.get_section_by_name(name)
    assert section is not None
    return section.data()


def kinds(elf: ELFFile, name: str) -> list[int]:
    return [kind for _, kind, _ in struct.Struct("<QI4xq").iter_unpack(content(elf, name))]


def test_calls_of_the_tracer_become_nothing_and_its_table_is_not_loaded() -> None:
    was = make_traced_module(calls=[("__fentry__", PLT32), ("printk", PLT32), ("__fentry__", PC32),
                                    ("__fentry__", ABSOLUTE), ("my__fentry__", PLT32)])
    data, changed = untrace(was)
    elf = ELFFile(io.BytesIO(data))
    assert content(elf, ".text").hex() == NOP + CALL + NOP + CALL + CALL
    assert kinds(elf, ".rela.text") == [NONE, PLT32, NONE, ABSOLUTE, PLT32]
    flags = {section.name: section["sh_flags"] for section in elf.iter_sections()}
    assert (flags["__mcount_loc"], flags[".text"]) == (0, 6)
    assert kinds(elf, ".rela__mcount_loc") == kinds(ELFFile(io.BytesIO(was)), ".rela__mcount_loc")
    assert len(changed) == CHANGED_BYTES.size * (1 + 2 * (3 + 1))
    assert put_back(data, changed) == was


def test_a_table_without_calls_is_not_loaded_either() -> None:
    was = make_traced_module(calls=[("printk", PLT32)])
    data, changed = untrace(was)
    assert (len(changed), put_back(data, changed)) == (CHANGED_BYTES.size, was)


@pytest.mark.parametrize("module", [
    pytest.param(make_module("a"), id="nothing-to-trace"),
    pytest.param(make_traced_module(calls=[("__fentry__", PLT32)], table=False), id="no-table"),
    pytest.param(make_traced_module(machine=183, calls=[("__fentry__", PLT32)]), id="another-processor"),
])
def test_what_has_no_such_table_stays_as_it_is(module: bytes) -> None:
    assert untrace(module) == (module, b"")
