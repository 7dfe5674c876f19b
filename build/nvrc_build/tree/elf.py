# SPDX-License-Identifier: Apache-2.0
"""Which libraries an ELF file needs, and where in an image they come from. Computed with pyelftools, nothing is run.

Follows the dynamic loader's own rules as far as an image needs them: DT_NEEDED by name, searched in DT_RUNPATH or
DT_RPATH with $ORIGIN first, then in the standard folders; ld.so(8). Files may be hostile: every table is bounded.
"""

from __future__ import annotations

import io
import itertools
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment, DynamicTag
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from elftools.elf.sections import Section
from elftools.elf.segments import InterpSegment

from nvrc.vocabulary.console import printable
from nvrc_build.ground.errors import BuildError

T = TypeVar("T")

_SEGMENT_BYTES, _SECTION_BYTES = 56, 64
_MOST_ROWS = 1 << 14  # of one table: the largest libraries of a driver have some hundred
_MOST_READ = 64 << 20  # of a file in all: thousands of rows may name one text of a megabyte
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


class _Metered(io.BytesIO):
    """A file of which no more is read than its tables are worth."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READ

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise ELFError("tables that name the same bytes over and over")
        return found


def is_program(head: bytes) -> bool:
    """By its header: 64 bits, little-endian, executable or shared, x86-64."""
    return head[:6] == b"\x7fELF\x02\x01" and head[16:18] in (b"\x02\0", b"\x03\0") and head[18:20] == b"\x3e\0"


def read_needs(data: bytes, path: str) -> Needs | None:
    """What the file at `path` needs; None when it is no ELF program or library of this architecture.

    A file that is one and cannot be read as such is a BuildError: nobody knows what it needs.
    """
    if not is_program(data[:20]):
        return None
    try:
        return _read(ELFFile(_Metered(data)), posixpath.dirname(path))
    except Exception as err:  # pyelftools raises what its parts raise: the file may be anything
        raise BuildError(f"{path} is a damaged ELF file: {type(err).__name__} {printable(str(err))}".rstrip(),
                         "copy it again from its origin") from err


def _read(elf: ELFFile, origin: str) -> Needs:
    if elf["e_phentsize"] != _SEGMENT_BYTES or (elf["e_shoff"] and elf["e_shentsize"] != _SECTION_BYTES):
        raise ELFError("header tables of an impossible shape")
    segments = _bounded(elf.iter_segments())
    sections = _bounded(elf.iter_sections())
    interpreter = next((one.get_interp_name() for one in segments if isinstance(one, InterpSegment)), "")
    tags = [tag for one in segments if isinstance(one, DynamicSegment) for tag in _bounded(one.iter_tags())]
    run_path = _values(tags, "DT_RUNPATH", "runpath") or _values(tags, "DT_RPATH", "rpath")
    return Needs(
        libraries=_values(tags, "DT_NEEDED", "needed"),
        run_path=tuple(posixpath.normpath(part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
                       for row in run_path for part in row.split(":") if part),
        interpreter=interpreter,
        soname="".join(_values(tags, "DT_SONAME", "soname")[:1]),
        versions=_needed_versions(sections), defines=_defined_versions(sections),
    )


def _bounded(rows: Iterable[T]) -> list[T]:
    """All of them; tables may claim to have billions of rows in one place."""
    taken = list(itertools.islice(rows, _MOST_ROWS + 1))
    if len(taken) > _MOST_ROWS:
        raise ELFError(f"a table of more than {_MOST_ROWS} rows")
    return taken


def _needed_versions(sections: Sequence[Section]) -> Mapping[str, tuple[str, ...]]:
    return {str(need.name): tuple(sorted(row.name for row in _bounded(rows) if not row["vna_flags"] & _WEAK))
            for section in sections if isinstance(section, GNUVerNeedSection)
            for need, rows in _bounded(section.iter_versions())}


def _defined_versions(sections: Sequence[Section]) -> frozenset[str]:
    return frozenset(next(names).name for section in sections if isinstance(section, GNUVerDefSection)
                     for _, names in _bounded(section.iter_versions()))


def _values(tags: Sequence[DynamicTag], kind: str, attribute: str) -> tuple[str, ...]:
    """pyelftools names a tag's text after its kind, at run time."""
    return tuple(str(getattr(tag, attribute)) for tag in tags if tag.entry.d_tag == kind)
