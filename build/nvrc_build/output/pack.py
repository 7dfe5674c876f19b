# SPDX-License-Identifier: Apache-2.0
"""A tree into the file a virtual machine boots from, and back. The packers are pinned tools, run in the tools root.

What is read may be another maker's: what it unpacks to is bounded while it is unpacked.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from nvrc_build.declared.declared import Compression, FileSystem
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.output.verity import BLOCK
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply.room import Room, remove, require_room, watch
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tarball import write_tar
from nvrc_build.tree.tree import Entry

# zstd's level is within 3 % of 19 on the lab image in a tenth of the time; a rebuild must stay quick. Of lz4 the kernel
# reads the old frame (-l) only.
_PACKERS: Mapping[Compression, tuple[str, ...]] = {
    Compression.ZSTD: ("/usr/bin/zstd", "-q", "-f", "-9", "-T2", "--no-check"),
    Compression.LZ4: ("/usr/bin/lz4", "-q", "-f", "-l", "-9"),
}
_UNPACKERS: Mapping[Compression, tuple[str, ...]] = {
    Compression.ZSTD: ("/usr/bin/zstd", "-q", "-d", "-f"),
    Compression.LZ4: ("/usr/bin/lz4", "-q", "-d", "-f", "--no-sparse"),
}
_OUTPUT: Mapping[Compression, tuple[str, ...]] = {Compression.ZSTD: ("-o",), Compression.LZ4: ()}
# What each begins with; an archive that is stored has neither.
MAGICS: Mapping[bytes, Compression] = {b"\x28\xb5\x2f\xfd": Compression.ZSTD, b"\x02\x21\x4c\x18": Compression.LZ4}
# ext4 counts its smallest journal in blocks; this is the smallest.
_EXT4_JOURNAL_MB = 4
_EXT4_SPARE = 8 << 20
# The one extended attribute that mke2fs takes from a tar file.
_CAPABILITY = "security.capability"
_REMEDY = "give a disk image of Kata's layout"
_IMAGE = "the image's file system"
# What e2fsck counts and debugfs passes over in silence. One node may be there, the console.
_SPECIAL = re.compile(r"^ *((?!1 char)[1-9][0-9]* (?:character device file|block device file|fifo|socket)s?)$",
                      re.MULTILINE)
_EROFS_MAGIC, _EXT4_MAGIC = b"\xe2\xe1\xf5\xe0", b"\x53\xef"
_ROOM = Room()
# Kata's own builder uses these; every guest kernel that has EROFS can read the result.
EROFS_OPTIONS = ("-zlz4hc", "-Enoinline_data", "-b4096")


def write_initrd(entries: Iterable[Entry], path: Path, compression: Compression, *, tools: Path, epoch: int) -> None:
    raw = path.with_name(f"{path.name}.cpio")
    with raw.open("wb") as stream:
        for chunk in write_cpio(entries, epoch):
            stream.write(chunk)
    if compression is Compression.STORED:
        raw.rename(path)
        return
    _run(tools, [*_PACKERS[compression], f"/out/{raw.name}", *_OUTPUT[compression], f"/out/{path.name}"], path.parent)
    raw.unlink()


def read_initrd(path: Path, out: Path, *, tools: Path, room: Room = _ROOM) -> None:
    """The archive in an initrd, uncompressed."""
    with path.open("rb") as stream:
        kind = MAGICS.get(stream.read(4), Compression.STORED)
    if kind is Compression.STORED:
        shutil.copyfile(path, out)
        return
    copy = out.with_name("initrd.packed")
    shutil.copyfile(path, copy)
    argv = [*_UNPACKERS[kind], f"/out/{copy.name}", *_OUTPUT[kind], f"/out/{out.name}"]
    run(_inside(tools, argv, out.parent, largest_file=room.file_size), what="unpacking the initrd")
    copy.unlink()


def write_filesystem(kind: FileSystem, entries: Iterable[Entry], path: Path, *, tools: Path, epoch: int) -> None:
    {FileSystem.EROFS: write_erofs, FileSystem.EXT4: write_ext4}[kind](entries, path, tools=tools, epoch=epoch)


def _write_tar(entries: Iterable[Entry], raw: Path, epoch: int) -> uuid.UUID:
    """The tree as a tar file, and an identity that follows from it: equal trees give equal file systems."""
    with raw.open("wb") as stream:
        write_tar(entries, stream, epoch)
    with raw.open("rb") as stream:
        return uuid.UUID(bytes=hashlib.file_digest(stream, "sha256").digest()[:16], version=5)


def write_erofs(entries: Iterable[Entry], path: Path, *, tools: Path, epoch: int) -> None:
    raw = path.with_name(f"{path.name}.tar")
    identity = _write_tar(entries, raw, epoch)
    _run(tools, ["/usr/bin/mkfs.erofs", "--quiet", *EROFS_OPTIONS, "--tar=f", f"-T{epoch}", "--all-time",
                 f"-U{identity}", f"/out/{path.name}", f"/out/{raw.name}"], path.parent)
    raw.unlink()


def write_ext4(entries: Iterable[Entry], path: Path, *, tools: Path, epoch: int) -> None:
    """With a journal: Kata mounts ext4 roots with data=ordered, which a file system without one refuses."""
    rows = tuple(entries)
    lost = tuple(f"{row.path}: {name}" for row in rows for name, _ in row.xattrs if name != _CAPABILITY)
    if lost:
        raise BuildError("mke2fs would drop extended attributes", "use EROFS, or take them off", findings=lost)
    raw = path.with_name(f"{path.name}.tar")
    identity = _write_tar(rows, raw, epoch)
    blocks = sum(-(-row.size // BLOCK) + 1 for row in rows)
    blocks += blocks // 20 + _EXT4_SPARE // BLOCK
    _run(tools, ["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", f"-b{BLOCK}", "-m0", "-J", f"size={_EXT4_JOURNAL_MB}",
                 "-N", str(len(rows) + 64), "-O", "^resize_inode,^dir_index", "-U", str(identity),
                 "-E", f"hash_seed={identity},lazy_itable_init=0", "-d", f"/out/{raw.name}",
                 f"/out/{path.name}", str(blocks)],
         path.parent, {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)})
    raw.unlink()


def read_filesystem(path: Path, target: Path, *, tools: Path, room: Room = _ROOM) -> FileSystem:
    """Unpack a file system with its extended attributes; it is checked on the way. Returns its kind."""
    kind = detect_filesystem(path)
    {FileSystem.EROFS: _read_erofs, FileSystem.EXT4: _read_ext4}[kind](path, target, tools, room)
    return kind


def _read_erofs(path: Path, target: Path, tools: Path, room: Room) -> None:
    """Twice, with owners and with attributes: fsck.erofs sets owners last, and the kernel then drops capabilities."""
    owners = target.with_name(f"{target.name}.owners")
    for folder, options in ((owners, ()), (target, ("--xattrs", "--no-preserve-owner"))):
        _fill(folder, tools, ["/usr/bin/fsck.erofs", f"--extract=/out/{folder.name}", "--overwrite", *options,
                              f"/out/{path.name}"], room, most_errors=0)
    foreign = sorted(f"/{file.relative_to(owners)} belongs to {state.st_uid}:{state.st_gid}"
                     for file in owners.rglob("*") if (state := file.lstat()).st_uid or state.st_gid)
    shutil.rmtree(owners)
    if foreign:
        raise BuildError("only root owns files in an image", findings=tuple(foreign))


def _fill(folder: Path, tools: Path, argv: list[str], room: Room, *, most_errors: int) -> None:
    """Run what unpacks an image into a new folder, as long as there is room; of too much nothing is left."""
    folder.mkdir()
    try:
        run(_inside(tools, argv, folder.parent, largest_file=room.file_size), what=f"unpacking {_IMAGE}",
            watch=watch(_IMAGE, folder, room), most_errors=most_errors)
        require_room(_IMAGE, folder, room)
    except BaseException:
        remove(folder)
        raise


def _read_ext4(path: Path, target: Path, tools: Path, room: Room) -> None:
    said = run(_inside(tools, ["/usr/sbin/e2fsck", "-fnv", f"/out/{path.name}"], path.parent), what="e2fsck")
    if lost := tuple(_SPECIAL.findall(said)):
        raise BuildError(f"{_IMAGE} has what is neither a file, nor a folder, nor a link", _REMEDY, findings=lost)
    _fill(target, tools, ["/usr/sbin/debugfs", "-R", f"rdump / /out/{target.name}", f"/out/{path.name}"], room,
          most_errors=1)  # its version
    try:
        (target / "lost+found").rmdir()
    except OSError as wrong:
        raise BuildError(f"{path.name} has no empty folder lost+found: {wrong.strerror}", _REMEDY) from wrong
    odd = [ascii(name) for file in sorted(target.rglob("*")) if not is_plain(name := str(file.relative_to(target)))]
    if odd:  # debugfs reads names from a script, a line each
        raise BuildError(f"{path.name} has names that no image has", _REMEDY, findings=tuple(odd[:20]))
    _read_capabilities(path, target, tools)


def _read_capabilities(path: Path, target: Path, tools: Path) -> None:
    """One run asks for all files; each answer is a file, or none where the attribute is not set."""
    files = [file for file in sorted(target.rglob("*")) if file.is_file() and not file.is_symlink()]
    script, value = path.with_name("debugfs"), path.with_name("value")
    script.write_text("".join(f'ea_get -f /out/{value.name}.{number} "/{file.relative_to(target)}" {_CAPABILITY}\n'
                              for number, file in enumerate(files)), encoding="utf-8")
    _run(tools, ["/usr/sbin/debugfs", "-f", f"/out/{script.name}", f"/out/{path.name}"], path.parent)
    for number, file in enumerate(files):
        found = value.with_name(f"{value.name}.{number}")
        data = found.read_bytes() if found.is_file() else b""
        found.unlink(missing_ok=True)
        if data:
            _set_capability(file, data)


def is_plain(name: str) -> bool:
    """A name that means itself between the quotes of a debugfs script."""
    return name.isprintable() and '"' not in name and "\\" not in name


def _set_capability(file: Path, data: bytes) -> None:
    try:
        os.setxattr(file, _CAPABILITY, data)
    except OSError as wrong:
        raise BuildError(f"/{file.name} has capabilities that the kernel refuses: {wrong.strerror}", _REMEDY) from wrong


def detect_filesystem(path: Path) -> FileSystem:
    """By the magic numbers of their superblocks, which both lie at 1024 bytes."""
    with path.open("rb") as stream:
        stream.seek(1024)
        head = stream.read(64)
    if head[:4] == _EROFS_MAGIC:
        return FileSystem.EROFS
    if head[56:58] == _EXT4_MAGIC:
        return FileSystem.EXT4
    raise BuildError(f"{path.name} is neither EROFS nor ext4", "give a disk image of Kata's layout")


def _run(tools: Path, argv: list[str], folder: Path, extra: Mapping[str, str] | None = None) -> None:
    run(_inside(tools, argv, folder, extra), what=argv[0].rpartition("/")[2])


def _inside(tools: Path, argv: list[str], folder: Path, extra: Mapping[str, str] | None = None,
            largest_file: int = 0) -> list[str]:
    return sandbox_argv(tools, argv, env=clean_env(extra), writable={"/out": folder}, largest_file=largest_file)
