# SPDX-License-Identifier: Apache-2.0
"""How a path of an image is written, in declarations and in the tree alike."""

from __future__ import annotations

from pathlib import PurePosixPath

from nvrc_build.ground.errors import BuildError


def clean_path(path: str) -> str:
    """An absolute path of one line of text, without '.', '..', doubled or trailing slashes; else it is refused."""
    is_plain = path.startswith("/") and path == "/" + "/".join(PurePosixPath(path).parts[1:]) and path.isprintable()
    if not is_plain or ".." in path.split("/"):
        raise BuildError(f"path {path!r} is not a plain absolute path", "write it from / without '..' or '.'")
    return path
