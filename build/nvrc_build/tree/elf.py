# SPDX-License-Identifier: Apache-2.0
"""Which libraries an ELF file needs, and where in an image they come from. Computed with pyelftools, nothing is run.

Follows the dynamic loader's own rules as far as an image needs them: DT_NEEDED by name, searched in DT_RUNPATH or
DT_RPATH with $ORIGIN first, then in the standard folders; ld.so(8).
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment, DynamicTag
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from elftools.elf.segments import InterpSegment

_WEAK = 2  # VER_FLG_WEAK: the loader does not insist
LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """`versions`: of which library which symbol versions are needed; `defines`: those that the file itself has."""

    libraries: tuple[str, ...]
    run_path: tuple[str, ...]
    interpreter: str
    soname: str
    versions: Mapping[str, tuple[str, ...]]
    defines: frozenset[str]


def is_program(head: bytes) -> bool:
    """By its header: 64 bits, little-endian, executable or shared, x86-64."""
    return head[:6] == b"\x7fELF\x02\x01" and head[16:18] in (b"\x02\0", b"\x03\0") and head[18:20] == b"\x3e\0"


def read_needs(data: bytes, path: str) -> Needs | None:
    """What the file at `path` needs; None when it is no ELF program or library of this architecture."""
    if data[:4] != b"\x7fELF":
        return None
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_type"] not in ("ET_EXEC", "ET_DYN") or elf["e_machine"] != "EM_X86_64":
            return None
        segments = list(elf.iter_segments())
        interpreter = next((one.get_interp_name() for one in segments if isinstance(one, InterpSegment)), "")
        tags = [tag for one in segments if isinstance(one, DynamicSegment) for tag in one.iter_tags()]
        versions, defines = _needed_versions(elf), _defined_versions(elf)
    except ELFError:
        return None
    origin = posixpath.dirname(path)
    run_path = _values(tags, "DT_RUNPATH", "runpath") or _values(tags, "DT_RPATH", "rpath")
    return Needs(
        libraries=_values(tags, "DT_NEEDED", "needed"),
        run_path=tuple(posixpath.normpath(part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
                       for row in run_path for part in row.split(":") if part),
        interpreter=interpreter,
        soname="".join(_values(tags, "DT_SONAME", "soname")[:1]),
        versions=versions, defines=defines,
    )


def _needed_versions(elf: ELFFile) -> Mapping[str, tuple[str, ...]]:
    return {str(need.name): tuple(sorted(row.name for row in rows if not row["vna_flags"] & _WEAK))
            for section in elf.iter_sections() if isinstance(section, GNUVerNeedSection)
            for need, rows in section.iter_versions()}


def _defined_versions(elf: ELFFile) -> frozenset[str]:
    return frozenset(next(names).name for section in elf.iter_sections() if isinstance(section, GNUVerDefSection)
                     for _, names in section.iter_versions())


def _values(tags: Sequence[DynamicTag], kind: str, attribute: str) -> tuple[str, ...]:
    """pyelftools names a tag's text after its kind, at run time."""
    return tuple(str(getattr(tag, attribute)) for tag in tags if tag.entry.d_tag == kind)
