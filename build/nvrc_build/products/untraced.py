# SPDX-License-Identifier: Apache-2.0
"""Kernel modules without their entries for the kernel's function tracing, which cost more at loading than all else.

For each function that can be traced the kernel goes through all symbols of the module, so a module of twice the size
takes four times as long. Here the table of these functions (`__mcount_loc`) is marked as not to be loaded, and each
call to the tracer becomes the instruction that the kernel itself would have put there. Names, unwinding and code stay.
What was changed is kept byte by byte, for the init to give a kernel that requires signatures the file that was signed.
"""

from __future__ import annotations

import io
import struct

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section

from nvrc.vocabulary.needs import CHANGED_BYTES

_TABLE, _TRACER = "__mcount_loc", b"__fentry__\0"
_SYMBOL, _RELOCATION = struct.Struct("<I4x16x"), struct.Struct("<QII8x")
_INFO, _FLAGS = 8, 8  # of a relocation its type, of a section's header its flags: where in the record
_PC32, _PLT32, _NONE = 2, 4, 0
_CALL, _NOP = bytes.fromhex("e800000000"), bytes.fromhex("0f1f440000")


def untrace(data: bytes) -> tuple[bytes, bytes]:
    """The module as it shall lie in the image, and the records that make it what it was; of other processors as is."""
    elf = ELFFile(io.BytesIO(data))
    sections = list(elf.iter_sections())
    table = next((index for index, section in enumerate(sections) if section.name == _TABLE), None)
    if table is None or elf["e_machine"] != "EM_X86_64":
        return data, b""
    changed = bytearray(data)
    changed[elf["e_shoff"] + table * elf["e_shentsize"] + _FLAGS] &= ~SH_FLAGS.SHF_ALLOC & 0xFF
    tracer = _find_tracer(sections)
    for section in sections:
        if section["sh_type"] == "SHT_RELA" and sections[section["sh_info"]]["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
            _drop_calls(changed, section, sections[section["sh_info"]]["sh_offset"], tracer)
    differs = (at for at, pair in enumerate(zip(data, changed, strict=True)) if pair[0] != pair[1])
    return bytes(changed), b"".join(CHANGED_BYTES.pack(at, data[at]) for at in differs)


def _find_tracer(sections: list[Section]) -> int:
    """The number of the symbol that functions call first; 0, which no call has, where none does."""
    symbols = next((section for section in sections if section.name == ".symtab"), None)
    if symbols is None:
        return 0
    names = sections[symbols["sh_link"]].data()
    found = (number for number, (name,) in enumerate(_SYMBOL.iter_unpack(symbols.data()))
             if names.startswith(_TRACER, name))
    return next(found, 0)


def _drop_calls(changed: bytearray, section: Section, text: int, tracer: int) -> None:
    for number, (offset, kind, symbol) in enumerate(_RELOCATION.iter_unpack(section.data())):
        at = text + offset - 1
        if symbol == tracer and kind in (_PC32, _PLT32) and changed[at:at + len(_CALL)] == _CALL:
            changed[at:at + len(_NOP)] = _NOP
            changed[section["sh_offset"] + number * _RELOCATION.size + _INFO] = _NONE
