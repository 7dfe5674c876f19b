# SPDX-License-Identifier: Apache-2.0
"""A class's config.d folder, in which Kata reads whatever lies there.

Both runtimes decode every entry as TOML, in the order of the names and whatever the names end in (Go: decodeDropIns in
katautils/config.go; Rust: update_from_dropins in kata-types' drop_in.rs, which takes regular files only). One stray
file breaks every pod of the class, and an editor's backup counts as a drop-in: so the folder is looked at first.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.kata.extensions import read_toml

DROP_IN = "50-nvrc.toml"


def write_drop_in(folder: Path, text: str) -> Path:
    """Checked, then put in place by one rename: a pod that starts meanwhile sees the old file or the new one."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the folder, never in it: Kata would decode the unfinished file.
    unfinished = folder.parent / f".{DROP_IN}.{os.getpid()}"
    try:
        unfinished.write_text(text, encoding="utf-8")
        return unfinished.rename(folder / DROP_IN)
    finally:
        unfinished.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Every entry that Kata could not decode, or that nobody means it to decode, is named."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WrongCallError(f"{folder} is not a folder", "give -d the class's config.d")
    findings = tuple(f"{entry.name}: {wrong}" for entry in sorted(folder.iterdir()) if (wrong := _what_is_wrong(entry)))
    if findings:
        raise BuildError(f"{folder} has entries that break every pod of the class: Kata reads each one as TOML",
                         "move them out of the folder, then run this again", findings=findings)


def _what_is_wrong(entry: Path) -> str:
    if entry.is_symlink() or not entry.is_file():
        return "not a regular file; the Rust runtime refuses it"
    if entry.suffix != ".toml" or entry.name.startswith("."):
        return "not a drop-in by its name; Kata reads a backup or an editor's file like any other"
    try:
        read_toml(entry)
    except ValueError as wrong:
        return str(wrong)
    return ""
