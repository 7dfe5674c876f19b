# SPDX-License-Identifier: Apache-2.0
"""Unpack packages into a root folder. Maintainer scripts never run, so a root needs none to be of use, or fails here.

A root made this way serves the sandbox (freezing, compiling) and is never itself part of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nvrc_build.ground.run import find, run
from nvrc_build.sandbox.sandbox import MOUNT_POINTS
from nvrc_build.supply.apt import Package, take

# The package that carries /bin -> usr/bin and its likes; whatever is unpacked before it would make them directories.
_LAYOUT = "base-files"


def unpack(packages: Sequence[Package], debs: Path, root: Path, tick: Callable[[str, int, int], None]) -> None:
    ordered = sorted(packages, key=lambda package: (package.name != _LAYOUT, package.name))
    root.mkdir(parents=True, exist_ok=True)
    for number, package in enumerate(ordered, start=1):
        tick(f"unpack {package.name}", number, len(ordered))
        unpack_one(package, debs, root)
    for point in MOUNT_POINTS:
        (root / point).mkdir(exist_ok=True)


def unpack_one(package: Package, debs: Path, root: Path) -> None:
    run([find("dpkg-deb", "dpkg"), "-x", take(package, debs), root], what=f"unpacking {package.file_name}")
