# SPDX-License-Identifier: Apache-2.0
"""A newc archive for the kernel's initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).

Needs no tool and no privileges. Inodes count up from 1 in path order, every time stamp is the one given, every owner
is root, so equal trees give equal bytes. No hard links: two equal files are two files. A kernel without room for all
of it starts what it has unpacked by then; so the file by which the first program knows that all is there comes last.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from nvrc.vocabulary.paths import LAST
from nvrc_build.ground.errors import BuildError
from nvrc_build.tree.tree import Entry, Kind

_TYPE = {Kind.FILE: stat.S_IFREG, Kind.FOLDER: stat.S_IFDIR, Kind.LINK: stat.S_IFLNK, Kind.NODE: stat.S_IFCHR}
_TRAILER = "TRAILER!!!"
_LARGEST = 0xFFFFFFFF  # eight digits


def write_cpio(entries: Iterable[Entry], mtime: int) -> Iterator[bytes]:
    for inode, entry in enumerate(sorted(entries, key=_is_last), start=1):
        name = entry.path.lstrip("/") or "."
        if entry.size > _LARGEST:
            raise BuildError(f"{entry.path} has {entry.size} bytes; an initrd can have files of no more than "
                             f"{_LARGEST}", "make the image a disk, or leave the file out")
        data = _data(entry)
        links = 2 if entry.kind is Kind.FOLDER else 1
        mode = _TYPE[entry.kind] | entry.mode
        yield _header((inode, mode, 0, 0, links, mtime, len(data), 0, 0, *entry.device), name)
        yield data + _padding(len(data))
    yield _header((0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), _TRAILER)


def _is_last(entry: Entry) -> bool:
    return entry.path == LAST


def _data(entry: Entry) -> bytes:
    if entry.kind is Kind.FILE:
        return entry.read()
    return entry.target.encode() if entry.kind is Kind.LINK else b""


def _header(fields: tuple[int, ...], name: str) -> bytes:
    """`fields`: inode, mode, uid, gid, links, mtime, size, major and minor of the file system and of the node."""
    path = name.encode() + b"\0"
    head = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(path), 0)) + path
    return head + _padding(len(head))


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 4)
