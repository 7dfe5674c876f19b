# SPDX-License-Identifier: Apache-2.0
"""The narrow, read-only view of a machine that the discoverers need, and the one that looks at real files.

Paths are absolute as the described machine sees them. With a root other than "/" every symbolic link is followed
inside that root, also an absolute one, so that an image tree on a build machine reads as it will in the guest.
Answers are kept for the life of the object: a driver does not change while it is described.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class FileInfo(NamedTuple):
    """The part of lstat that a document can depend on; major and minor are those of a device node."""

    mode: int
    major: int = 0
    minor: int = 0
    gid: int = 0


class Host(Protocol):
    """Every method raises OSError as the kernel gives it; the caller says what that means."""

    def lstat(self, path: str) -> FileInfo: ...
    def resolve(self, path: str) -> str: ...
    def read_link(self, path: str) -> str: ...
    def list_dir(self, path: str) -> tuple[str, ...]: ...
    def open(self, path: str) -> int: ...
