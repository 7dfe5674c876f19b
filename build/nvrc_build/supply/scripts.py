# SPDX-License-Identifier: Apache-2.0
"""Maintainer scripts: they never run here, so a package that has them is good for an image only if a slice says why.

What counts is what runs at installation, preinst and postinst (deb-postinst(5)); removal never happens to an image.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from nvrc_build.declared.declared import Slice
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import find, save
from nvrc_build.supply.apt import Package, take
from nvrc_build.supply.extract import DAMAGE, list_members
from nvrc_build.supply.tar import open_tar

_AT_INSTALLATION = ("preinst", "postinst")
_MOST_BYTES = 64 << 20
REMEDY = "remove it from the cache's debs/ and build again"


def read_scripts(deb: Path) -> tuple[str, ...]:
    """Names of the scripts that an installation would run."""
    try:
        with open(os.memfd_create("control.tar"), "r+b") as memory:
            target = Path(f"/proc/self/fd/{memory.fileno()}")
            save([find("dpkg-deb", "dpkg"), "--ctrl-tarfile", deb], target, _MOST_BYTES,
                 what=f"reading package {deb.name}")
            return scripts_of(memory)
    except DAMAGE as wrong:
        raise BuildError(f"package {deb.name} cannot be read: {wrong}", REMEDY) from wrong


def scripts_of(control: IO[bytes]) -> tuple[str, ...]:
    """Of the archive of control files, as dpkg-deb unpacks it."""
    with open_tar(stream=control, mode="r:") as tar:
        names = {posixpath.normpath(member.name.lstrip("/")) for member in list_members(tar)}
    return tuple(name for name in _AT_INSTALLATION if name in names)


def unexplained_scripts(slices: Sequence[Slice], used: Iterable[str], packages: Sequence[Package],
                        debs: Path) -> list[str]:
    """Packages with files in the image whose scripts no slice accounts for, and explanations of none."""
    explained = {row.package: (part.name, row) for part in slices for row in part.unscripted}
    names, found = set(used), []
    for package in sorted(packages):
        if package.name not in names:
            continue
        scripts = read_scripts(take(package, debs))
        if scripts and package.name not in explained:
            found.append(f"package {package.name} has a {' and a '.join(scripts)} that would have to run; scripts "
                         "never run, so say in a slice's [[unscripted]] why its files are good without, or leave it")
        if not scripts and package.name in explained and not explained[package.name][1].in_some_archives:
            found.append(f"slice {explained[package.name][0]!r}: {package.name} has no scripts; "
                         "take its [[unscripted]] out")
    return found
