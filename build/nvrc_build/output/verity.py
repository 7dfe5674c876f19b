# SPDX-License-Identifier: Apache-2.0
"""The dm-verity hash tree of a block device, hash type 1, without superblock, as the kernel reads it.

Documentation/admin-guide/device-mapper/verity.rst; equal to `veritysetup format --no-superblock`. The salt is not a
secret: it is derived from the data, so that equal data give equal trees on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase

from nvrc_build.ground.errors import BuildError

BLOCK = 4096
ROOT_FLAGS: Mapping[str, str] = {"erofs": "ro", "ext4": "data=ordered,errors=remount-ro ro"}
_SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Verity:
    root_hash: str
    salt: str
    data_blocks: int

    def parameters(self) -> str:
        """One line, in the form that goes on the kernel command line and into root_hash files."""
        return (f"root_hash={self.root_hash},salt={self.salt},data_blocks={self.data_blocks},"
                f"data_block_size={BLOCK},hash_block_size={BLOCK}")

    def root_parameters(self, data: str = "/dev/vda1", hashes: str = "/dev/vda2", fstype: str = "erofs") -> str:
        """What makes the kernel itself map and mount a verity root (CONFIG_DM_INIT). As Kata's runtime writes it:
        the flags of ext4 hold a blank and are not quoted, so that the kernel sees errors=remount-ro and a bare ro."""
        flags = ROOT_FLAGS[fstype]
        sectors = self.data_blocks * BLOCK // _SECTOR
        return (f'dm-mod.create="dm-verity,,,ro,0 {sectors} verity 1 {data} {hashes} {BLOCK} {BLOCK} '
                f'{self.data_blocks} 0 sha256 {self.root_hash} {self.salt}" root=/dev/dm-0 rootflags={flags} '
                f'rootfstype={fstype}')


def parse_parameters(line: str) -> Verity:
    fields = dict(part.split("=", 1) for part in line.strip().split(",") if "=" in part)
    try:
        found = Verity(root_hash=fields["root_hash"], salt=fields["salt"], data_blocks=int(fields["data_blocks"]))
    except (KeyError, ValueError) as wrong:
        raise BuildError(f"verity parameters {line!r} cannot be read: {wrong}") from wrong
    if set(found.parameters().split(",")) != set(line.strip().split(",")):
        raise BuildError(f"verity parameters {line!r} are not of the form {found.parameters()!r}")
    return found


def derive_salt(data: BufferedIOBase) -> str:
    data.seek(0)
    return hashlib.sha256(b"nvrc verity salt\0" + hashlib.file_digest(data, "sha256").digest()).hexdigest()


def hash_tree(data: BufferedIOBase, salt: str) -> tuple[Verity, bytes]:
    """The parameters and the content of the hash device: the level below the root first, the leaves last."""
    data.seek(0)
    seed = hashlib.sha256(bytes.fromhex(salt))
    leaves = list(_digests(_blocks(data), seed))
    if not leaves:
        raise BuildError("there is no data to protect")
    levels = [_pack(leaves)] if len(leaves) > 1 else []
    while levels and len(levels[-1]) > BLOCK:
        levels.append(_pack(_digests(_cut(levels[-1]), seed)))
    root, = _digests(levels[-1:], seed) if levels else leaves
    return Verity(root_hash=root.hex(), salt=salt, data_blocks=len(leaves)), b"".join(reversed(levels))


def _digests(blocks: Iterable[bytes], seed: hashlib._Hash) -> Iterator[bytes]:
    for block in blocks:
        state = seed.copy()
        state.update(block)
        yield state.digest()


def _pack(digests: Iterable[bytes]) -> bytes:
    joined = b"".join(digests)
    return joined + b"\0" * (-len(joined) % BLOCK)


def _blocks(data: BufferedIOBase) -> Iterator[bytes]:
    while block := data.read(BLOCK):
        if len(block) != BLOCK:
            raise BuildError(f"the data is not a whole number of {BLOCK} byte blocks")
        yield block


def _cut(level: bytes) -> Iterator[bytes]:
    return (level[at:at + BLOCK] for at in range(0, len(level), BLOCK))
