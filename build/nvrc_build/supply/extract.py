# SPDX-License-Identifier: Apache-2.0
"""A tar archive of somebody else's as a folder: every member is looked at before the first is written.

Refused: what would lie outside (an absolute path, `..`), what lies below a link, a link that leads out, device nodes,
pipes and sparse files, names that are not one line of text, a path that is there twice with two meanings, more than an
image can hold. So nothing is ever written through a link, and what a small archive unpacks to is bounded before it is
unpacked. A folder of somebody else's is held to the same rules. Owners, set-id bits and write permission of others are
not taken along. The rules are our own and not the filters of tarfile, which Python 3.11 has only from 3.11.4 on and
which change with its version.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path, PurePosixPath

from nvrc_build.ground.errors import BuildError
from nvrc_build.supply.room import DEEPEST, Room, require_room
from nvrc_build.supply.tar import open_tar

MOST_BYTES, MOST_MEMBERS = Room().size, Room().members
_MOST_FINDINGS = 20
_CHUNK = 1 << 20
_LONGEST_NAME, _LONGEST_PATH, _LONGEST_TARGET = 255, 4095, 4095
# What tarfile and its decompressors raise over a file that is cut, damaged or of another kind. tarfile calls itself for
# each header that is about the next one, of which there may be thousands in a row. A dictionary of xz may have 4 GiB.
DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, OverflowError, RecursionError,
          MemoryError)
_COMPRESSIONS = {b"\x1f\x8b": "r:gz", b"BZh": "r:bz2", b"\xfd7zXZ\0": "r:xz", b"\x5d\0\0": "r:xz"}
_REMEDY = "make the archive again without what is refused"


class Kind(Enum):
    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"


def extract(what: str, archive: Path, target: Path, *, absolute_links: bool = False) -> None:
    """`absolute_links`: the tree is an image's, where a link to /usr/x means the image's own."""
    try:
        with _open(archive) as tar:
            members = list_members(tar)
            findings = check(members, absolute_links=absolute_links)
            if not findings:
                target.mkdir(parents=True, exist_ok=True)
                for member in members:
                    _write(tar, member, target)
                _stamp_folders(members, target)
    except DAMAGE as wrong:
        if isinstance(wrong, OSError) and wrong.errno not in (None, errno.EMLINK):
            raise  # the disk's failure, not the archive's
        raise BuildError(f"{what} {archive.name} cannot be unpacked: {wrong}",
                         "give a tar archive or a folder, laid out as in the image") from wrong
    if findings:
        raise refuse(f"{what} {archive.name} cannot be unpacked", findings, _REMEDY)


def refuse(what: str, findings: tuple[str, ...], remedy: str) -> BuildError:
    more = (f"and {len(findings) - _MOST_FINDINGS} more",) if len(findings) > _MOST_FINDINGS else ()
    return BuildError(f"{what}: not all of it is files, folders and links within", remedy,
                      findings=(*findings[:_MOST_FINDINGS], *more))


def check_folder(what: str, folder: Path) -> None:
    """Before it is copied: a pipe in it would be waited for, and a device read without an end."""
    require_room(f"{what} {folder}", folder, Room())
    findings = tuple(f"{str(place.relative_to(folder))!r}: {reason}" for place in sorted(folder.rglob("*"))
                     for reason in _refuse_file(PurePosixPath(place.relative_to(folder)), place))
    if findings:
        raise refuse(f"{what} {folder} cannot be taken", findings, "give the folder without what is refused")


def _refuse_file(path: PurePosixPath, place: Path) -> Iterator[str]:
    mode = place.lstat().st_mode
    if reason := refuse_name(path, str(path)):
        yield reason
    elif stat.S_ISLNK(mode):
        yield from _refuse_target(path, os.readlink(place), absolute_links=True)
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        yield "is neither a file, nor a folder, nor a link"


def _open(archive: Path) -> tarfile.TarFile:
    """By what it begins with: tarfile would try one decompressor after the other on it."""
    with archive.open("rb") as file:
        head = file.read(6)
    mode = next((mode for begin, mode in _COMPRESSIONS.items() if head.startswith(begin)), "r:")
    try:
        return open_tar(archive, mode=mode)
    except tarfile.ReadError as wrong:
        raise tarfile.TarError("it is empty, damaged or no tar archive") from wrong


def list_members(tar: tarfile.TarFile, most: int = MOST_MEMBERS) -> list[tarfile.TarInfo]:
    """Headers only, and no more of them than an image can have: to get to the next one all between is unpacked.

    Of a path or target that is too long so much is kept that it is still too long.
    """
    members: list[tarfile.TarInfo] = []
    total = 0
    for member in tar:
        member.name, member.linkname = member.name[:_LONGEST_PATH + 1], member.linkname[:_LONGEST_TARGET + 1]
        members.append(member)
        total += max(member.size, 0)
        if len(members) > most:
            raise tarfile.TarError(f"it has more than {most} members")
        if total > MOST_BYTES:
            raise tarfile.TarError(f"its files are {total / 1e9:.1f} GB together; "
                                   f"{MOST_BYTES / 1e9:.1f} GB is the limit")
        if tar.offset > 2 * MOST_BYTES:
            raise tarfile.TarError(f"its headers are more than {MOST_BYTES / 1e9:.1f} GB")
    _read_to_end(tar)
    return members


def _read_to_end(tar: tarfile.TarFile) -> None:
    """A checksum of gzip or xz is behind the last byte, and tarfile takes a damaged header for the end."""
    left = MOST_BYTES
    while tar.fileobj is not None and (chunk := tar.fileobj.read(_CHUNK)):
        left -= len(chunk)
        if chunk.strip(b"\0") or left < 0:
            raise tarfile.TarError("behind its last member is something that is not a member")


def check(members: Iterable[tarfile.TarInfo], *, absolute_links: bool = False) -> tuple[str, ...]:
    """Every reason not to write these members, in their order."""
    seen = {PurePosixPath(): Kind.FOLDER}
    return tuple(f"{member.name[:_LONGEST_NAME]!r}: {reason}" for member in members
                 for reason in _refuse(member, seen, absolute_links=absolute_links))


def _refuse(member: tarfile.TarInfo, seen: dict[PurePosixPath, Kind], *, absolute_links: bool) -> Iterator[str]:
    path, kind = PurePosixPath(member.name), _kind(member)
    if reason := refuse_name(path, member.name):
        yield reason
    elif kind is None:
        yield "is neither a file, nor a folder, nor a link"
    elif reason := refuse_size(member):
        yield reason
    else:
        yield from _refuse_place(path, kind, seen)
        if member.issym():
            yield from _refuse_target(path, member.linkname, absolute_links=absolute_links)
        elif member.islnk() and seen.get(PurePosixPath(member.linkname)) is not Kind.FILE:
            yield f"is a hard link to {member.linkname!r}, which is not a file that comes before it"
        seen[path] = kind


def refuse_name(path: PurePosixPath, name: str) -> str:
    """Names are printed, and written into documents. A path is asked for each of its parents."""
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return "lies outside the archive's root"
    if not name.isprintable():
        return "has a name that is not one line of text"
    if max((len(os.fsencode(part)) for part in path.parts), default=0) > _LONGEST_NAME:
        return f"has a name longer than {_LONGEST_NAME} bytes"
    if len(os.fsencode(name)) > _LONGEST_PATH or len(path.parts) > DEEPEST:
        return f"has a path longer than {_LONGEST_PATH} bytes, or of more than {DEEPEST} folders"
    return ""


def refuse_size(member: tarfile.TarInfo) -> str:
    """What has no content has none in the archive: one reader would pass over it, another take it for members."""
    is_odd = member.size < 0 or (member.size and (member.isdir() or member.issym()))
    return f"has a size of {member.size}" if is_odd else ""


def _refuse_place(path: PurePosixPath, kind: Kind, seen: dict[PurePosixPath, Kind]) -> Iterator[str]:
    for parent in path.parents:
        if seen.setdefault(parent, Kind.FOLDER) is not Kind.FOLDER:
            yield f"lies below {str(parent)!r}, which is {seen[parent].value}"
    if seen.get(path, kind) is not kind:
        yield f"is given twice, as {seen[path].value} and as {kind.value}"


def _refuse_target(path: PurePosixPath, linkname: str, *, absolute_links: bool) -> Iterator[str]:
    """`..` only at the head of a target: behind a name it would depend on what that name is."""
    target = PurePosixPath(linkname)
    if not linkname or not linkname.isprintable() or len(os.fsencode(linkname)) > _LONGEST_TARGET:
        yield "is a link to nothing that could exist"
    elif target.is_absolute():
        if not absolute_links:
            yield f"is a link to {linkname!r}, outside the archive's root"
    else:
        up = next((number for number, part in enumerate(target.parts) if part != ".."), len(target.parts))
        if up > len(path.parts) - 1:
            yield f"is a link to {linkname!r}, outside the archive's root"
        elif ".." in target.parts[up:]:
            yield f"is a link to {linkname!r}, with '..' behind a name"


def is_plain_kind(member: tarfile.TarInfo) -> bool:
    return _kind(member) is not None


def _kind(member: tarfile.TarInfo) -> Kind | None:
    """A sparse file is none: some bytes of it are as large as one likes."""
    if (member.isreg() and not member.issparse()) or member.islnk():
        return Kind.FILE
    if member.isdir():
        return Kind.FOLDER
    return Kind.LINK if member.issym() else None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    place = target / PurePosixPath(member.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        place.mkdir(exist_ok=True)
        return
    source = target / PurePosixPath(member.linkname) if member.islnk() else None
    if source == place:
        return
    place.unlink(missing_ok=True)
    if source is not None:
        os.link(source, place, follow_symlinks=False)
    elif member.issym():
        place.symlink_to(member.linkname)
    else:
        _write_file(tar, member, place)


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.TarError(f"{member.name!r} has no content")
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as out, content:
        shutil.copyfileobj(content, out, _CHUNK)
        os.fchmod(out.fileno(), _mode(member.mode))
    os.utime(place, (member.mtime, member.mtime))


def _mode(mode: int) -> int:
    """Never set-id, never writable by others; executable for all who may, if its owner may."""
    kept = mode & 0o755 | stat.S_IRUSR | stat.S_IWUSR
    return kept if mode & stat.S_IXUSR else kept & 0o666


def _stamp_folders(members: Iterable[tarfile.TarInfo], target: Path) -> None:
    """Last of all, because what is written into a folder changes its time."""
    for member in members:
        if member.isdir():
            os.utime(target / PurePosixPath(member.name), (member.mtime, member.mtime))
