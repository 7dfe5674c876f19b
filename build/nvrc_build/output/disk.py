# SPDX-License-Identifier: Apache-2.0
"""A raw disk as Kata attaches it: DOS label, partition 1 the file system at 1 MiB, partition 2 its dm-verity tree.

Written without a partitioning tool; the disk signature is derived from the root hash, so nothing in it is random.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.output import verity
from nvrc_build.output.verity import Verity
from nvrc_build.supply.room import Room

_SECTOR = 512
_ALIGN = 1 << 20
_LINUX = 0x83
_BOOT = 0x80
_LBA_ONLY = b"\xfe\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    start: int
    size: int
    boot: bool = False


def write_disk(data: Path, disk: Path, salt: str | None = None) -> Verity:
    """Put a file system and its hash tree on a disk; `data` is a whole number of verity blocks."""
    with data.open("rb") as stream:
        found, tree = verity.hash_tree(stream, salt or verity.derive_salt(stream))
        first = Partition(start=_ALIGN, size=data.stat().st_size, boot=True)
        second = Partition(start=_align(first.start + first.size), size=_align(len(tree)))
        with disk.open("wb") as out:
            out.write(boot_record((first, second), int(found.root_hash[:8], 16)))
            out.seek(first.start)
            stream.seek(0)
            shutil.copyfileobj(stream, out, 1 << 20)
            out.seek(second.start)
            out.write(tree)
            out.truncate(second.start + second.size)
    return found


def _align(size: int) -> int:
    return max(_ALIGN, (size + _ALIGN - 1) // _ALIGN * _ALIGN)


def boot_record(partitions: Sequence[Partition], signature: int) -> bytes:
    rows = b"".join(struct.pack("<B3sB3sII", _BOOT if row.boot else 0, _LBA_ONLY, _LINUX, _LBA_ONLY,
                                row.start // _SECTOR, row.size // _SECTOR) for row in partitions)
    return b"\0" * 440 + struct.pack("<IH", signature, 0) + rows.ljust(64, b"\0") + b"\x55\xaa"


def read_partitions(disk: Path) -> tuple[Partition, ...]:
    with disk.open("rb") as stream:
        head = stream.read(_SECTOR)
    if len(head) != _SECTOR or head[510:] != b"\x55\xaa":
        raise BuildError(f"{disk} has no DOS partition table", "give a disk image made by nvrc-image or by Kata")
    rows = (struct.unpack_from("<B3sB3sII", head, 446 + 16 * number) for number in range(4))
    return tuple(Partition(start=row[4] * _SECTOR, size=row[5] * _SECTOR, boot=row[0] == _BOOT)
                 for row in rows if row[2])


def read_partition(disk: Path, number: int, out: Path) -> None:
    """Copy partition `number` (1 is the first) to a file."""
    rows = read_partitions(disk)
    if len(rows) < number:
        raise BuildError(f"{disk} has {len(rows)} partitions, number {number} is wanted")
    row = rows[number - 1]
    cut = BuildError(f"{disk} ends inside partition {number}", "give it whole")
    if row.start + row.size > disk.stat().st_size:
        raise cut  # before so much is copied
    if row.size > Room().size:
        raise BuildError(f"partition {number} of {disk} has {row.size / 1e9:.1f} GB",
                         f"give a disk with one of {Room().size / 1e9:.1f} GB at most")
    with disk.open("rb") as source, out.open("wb") as target:
        source.seek(row.start)
        left = row.size
        while left:
            chunk = source.read(min(left, 1 << 20))
            if not chunk:
                raise cut
            target.write(chunk)
            left -= len(chunk)
