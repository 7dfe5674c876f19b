# SPDX-License-Identifier: Apache-2.0
"""The headers of a tar archive, read so that they cost no more than they are worth; POSIX.1 pax, GNU tar's manual.

tarfile reads a header that is about the next one whole, whatever its size, and a list of holes to its end. It searches
them with patterns whose time grows with the square of their length, and copies what one says of all members for each.
And where two headers say of one member what it is called, it believes another one than GNU tar, which unpacks packages.
So headers about others are read here, in the same way under every release of Python.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LARGEST_HEADER = 1 << 20
_MOST_DIGITS = 8
_BLOCK = tarfile.BLOCKSIZE
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_GNU = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_KNOWN = ("path", "linkpath", "size", "mtime")
_FORMS = {"size": re.compile(r"[0-9]{1,15}"), "mtime": re.compile(r"-?[0-9]{1,15}(?:\.[0-9]*)?")}
_SPARSE = "GNU.sparse."


def open_tar(archive: Path | None = None, stream: IO[bytes] | None = None, mode: str = "r") -> tarfile.TarFile:
    return tarfile.open(archive, mode, stream, tarinfo=Member)  # type: ignore[call-overload, no-any-return]


class Member(tarfile.TarInfo):
    """`_proc_member` is the entry that tarfile has for subclasses."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.TarError(f"{self.name[:200]!r} is sparse")
        if self.type == tarfile.XGLTYPE:
            said = _read_records(self._read_body(tar))
            if odd := sorted(name for name in said if name in _KNOWN or name.startswith(_SPARSE)):
                raise tarfile.TarError(f"a header gives all members one {odd[0]}")
            return _read_header(tar)._proc_member(tar)
        if self.type in (*_PAX, *_GNU):
            return self._describe_next(tar)
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]

    def _describe_next(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        said: dict[str, str] = {}
        header = self
        while header.type in (*_PAX, *_GNU):
            fields = dict(header._fields(tar))
            if double := sorted(said.keys() & fields.keys()):
                raise tarfile.TarError(f"two headers give one member a {double[0]}")
            said |= fields
            header = _read_header(tar)
        if header.type == tarfile.XGLTYPE:
            raise tarfile.TarError("a header about all members lies between a member and its own")
        found = header._proc_member(tar)
        _apply(found, said, tar)
        found.offset = self.offset
        return found

    def _fields(self, tar: tarfile.TarFile) -> Iterator[tuple[str, str]]:
        body = self._read_body(tar)
        if self.type in _GNU:
            yield _GNU[self.type], body.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            return
        for name, value in _read_records(body).items():
            if name.startswith(_SPARSE):
                raise tarfile.TarError(f"a header says of a member that it is sparse: {name[:40]}")
            if name in _FORMS and not _FORMS[name].fullmatch(value):
                raise tarfile.TarError(f"a header gives one member a {name} of {value[:40]!r}")
            if name in _KNOWN:
                yield name, value

    def _read_body(self, tar: tarfile.TarFile) -> bytes:
        if not 0 <= self.size <= _LARGEST_HEADER:
            raise tarfile.TarError(f"a header has {self.size} bytes; {_LARGEST_HEADER} is the limit")
        body = _stream(tar).read(-(-self.size // _BLOCK) * _BLOCK)
        if len(body) < self.size:
            raise tarfile.TarError("it is cut short in a header")
        return body[:self.size]


def _stream(tar: tarfile.TarFile) -> IO[bytes]:
    if tar.fileobj is None:
        raise tarfile.TarError("it is closed")
    return tar.fileobj  # type: ignore[return-value]


def _read_header(tar: tarfile.TarFile) -> Member:
    stream = _stream(tar)
    found = Member.frombuf(stream.read(_BLOCK), "utf-8", "surrogateescape")
    found.offset = stream.tell() - _BLOCK
    return found


def _read_records(body: bytes) -> dict[str, str]:
    """Each is its own length, a blank, NAME=VALUE and a line end."""
    found: dict[str, str] = {}
    at = 0
    while at < len(body):
        digits = body[at:at + _MOST_DIGITS].partition(b" ")[0]
        end = at + int(digits) if digits.isdigit() else 0
        name, mark, value = body[at + len(digits) + 1:end - 1].partition(b"=")
        if not at < end <= len(body) or body[end - 1] != ord("\n") or not mark:
            raise tarfile.TarError("it has a damaged header")
        word = name.decode("utf-8", "surrogateescape")
        if word in found and word in _KNOWN:
            raise tarfile.TarError(f"a header gives one member two of {word}")
        found[word] = value.decode("utf-8", "surrogateescape")
        at = end
    return found


def _apply(member: tarfile.TarInfo, said: dict[str, str], tar: tarfile.TarFile) -> None:
    member.name = said.get("path", member.name).rstrip("/") or "/"
    member.linkname = said.get("linkpath", member.linkname)
    member.mtime = float(said.get("mtime", member.mtime))
    if "size" in said:
        member.size = int(said["size"])
        if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:
            tar.offset = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
