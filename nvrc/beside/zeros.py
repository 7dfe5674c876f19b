# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's library takes of memory to write zeros into is the kernel's again.

nvmlInit of 550.163 clears a table of 14 MB, for many more GPUs than a machine has; each page of it is then the
process's own, and holds nothing. A private page that nothing was ever written to reads as zeros, so one that is given
back is the same to the library, and comes again when something is written. madvise(2), proc_pid_maps(5).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator

from guest_cdi.lean.libc import SYS_MADVISE, syscall

PAGE, MADV_DONTNEED = os.sysconf("SC_PAGE_SIZE"), 4
NOTHING = bytes(PAGE)
Span = tuple[int, int]
# Of a file's header where the segments are told, the size of a row and how many; of a row its kind, place and length.
_HEADER, _SEGMENT, _LOAD = struct.Struct("<32xQ14xHH"), struct.Struct("<I12xQ16xQ"), 1


def give_back(library: str) -> int:
    """Bytes that were given back. None where another thread could write between the look and the call."""
    if len(os.listdir("/proc/self/task")) > 1:
        return 0
    path = os.path.realpath(library)
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        spans = tuple(variables(file, path, size_in_memory(path)))
    found = tuple(empty for span in spans for empty in _empty(span))
    for start, end in found:
        syscall("madvise", SYS_MADVISE, start, end - start, MADV_DONTNEED)
    return sum(end - start for start, end in found)


def size_in_memory(library: str) -> int:
    """From its first page to the end of its variables, by its program headers; elf(5), 64 bits."""
    with open(library, "rb") as file:
        head = file.read(_HEADER.size)
        offset, size, count = _HEADER.unpack(head)
        file.seek(offset)
        table = file.read(size * count)
    rows = [_SEGMENT.unpack_from(table, size * number) for number in range(count)]
    loaded: list[Span] = [(start, start + length) for kind, start, length in rows if kind == _LOAD]
    return max(end for _start, end in loaded) - min(start for start, _end in loaded) // PAGE * PAGE


def variables(maps: Iterable[str], library: str, size: int) -> Iterator[Span]:
    """What lies behind a library's file in memory: its variables that have no value in the file.

    The kernel makes one line of them and of memory of others that lies right behind, as the interpreter's does: that
    one is written to while it is looked at.
    """
    first = before = 0
    for line in maps:
        place, rights, _offset, _device, inode, *name = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in place.split("-"))
        if name and name[0].rstrip("\n") == library:
            first, before = first or start, end
        elif start == before and inode == "0" and not name and rights == "rw-p":
            yield start, min(end, (first + size) // PAGE * PAGE)


def _empty(span: Span) -> Iterator[Span]:
    """Pages of zeros, those that follow each other as one."""
    start, end = span
    began = None
    for page in range(start, end, PAGE):
        if ctypes.string_at(page, PAGE) == NOTHING:
            began = page if began is None else began
        elif began is not None:
            yield began, page
            began = None
    if began is not None:
        yield began, end
