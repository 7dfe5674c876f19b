# SPDX-License-Identifier: Apache-2.0
"""The shared libraries that a program of a root needs, for programs that go into a guest without their root."""

from __future__ import annotations

from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.tree.elf import LIBRARY_FOLDERS, read_needs
from nvrc_lab.kit.kit_texts import LIBRARIES


def closure(root: Path, program: str) -> tuple[Path, ...]:
    """The libraries a program of a root needs, directly or not, as files of the root."""
    found: dict[str, Path] = {}
    waiting = [(root / program.lstrip("/"), program)]
    while waiting:
        file, path = waiting.pop()
        needs = read_needs(file.read_bytes(), path)
        for name in needs.libraries if needs else ():
            if name not in found:
                found[name] = _find_library(root, name, program)
                waiting.append((found[name], f"{LIBRARIES}/{name}"))
    return tuple(found.values())


def _find_library(root: Path, name: str, program: str) -> Path:
    for folder in LIBRARY_FOLDERS:
        path = root / folder.lstrip("/") / name
        if path.exists():
            return path
    raise BuildError(f"{program} needs {name}, which is not in {root.name}", "run: nvrc-image lock lab")
