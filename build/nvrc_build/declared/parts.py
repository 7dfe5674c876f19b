# SPDX-License-Identifier: Apache-2.0
"""The tables inside a declaration ([[take]], [[link]], [[edit]]) as frozen values; declared.py is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from nvrc.vocabulary.records import key
from nvrc_build.declared.kinds import ImagePath, Inside, ModeBits, Paths, Word, Words

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Files of one package. `count` is how many entries the patterns must match together, whichever of
    them does; 0 means at least one each.

    With `into` they keep their names in another folder; with `bundle` they become one file, in order of their names.
    """

    package: Word
    paths: Paths
    count: int = 0
    into: ImagePath = ""
    bundle: ImagePath = ""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.into and self.bundle:
            yield "bundle", "and into exclude each other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    path: ImagePath
    mode: ModeBits = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    path: ImagePath
    target: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A small file: its content stands in the slice, or in a file below rootfs/files."""

    path: ImagePath
    content: str | None = None
    source: Inside = ""
    mode: ModeBits = 0o644

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if bool(self.source) is (self.content is not None):
            yield "", "needs either content or source"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account without password or shell; its group has the same number, and its name unless another is given."""

    name: Word
    number: int = field(metadata=key("id"))
    group: Word = ""
    home: ImagePath = "/nonexistent"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not _ACCOUNT.fullmatch(self.name) or (self.group and not _ACCOUNT.fullmatch(self.group)):
            yield "name", f"{self.name!r} or its group is not an account name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscripted:
    """Why a package's files are good although its maintainer scripts never ran; other archives' may have none."""

    package: Word
    why: Word
    in_some_archives: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileList:
    """Files named by a list that a package ships (NVIDIA's sandboxutils-filelist.json), chosen by type and category."""

    package: Word
    path: ImagePath
    types: Words
    categories: Words
    without: Words = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change to a source before it is compiled: text that must be there once, and what it becomes."""

    why: Word
    file: Inside
    find: Word
    replace: Word
