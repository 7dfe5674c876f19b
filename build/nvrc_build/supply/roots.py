# SPDX-License-Identifier: Apache-2.0
"""Unpack packages into a root folder. Maintainer scripts never run, so a root needs none to be of use, or fails here.

A root made this way serves the sandbox (freezing, compiling) and is never itself part of an image. What a package has
in it is looked at before it is written: tar follows the links that another package has left, out of the root as well.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import find, run, save
from nvrc_build.sandbox.sandbox import MOUNT_POINTS
from nvrc_build.supply.apt import Package, take
from nvrc_build.supply.extract import DAMAGE, MOST_BYTES, is_plain_kind, list_members, refuse, refuse_name, refuse_size
from nvrc_build.supply.tar import open_tar

# The package that carries /bin -> usr/bin and its likes; whatever is unpacked before it would make them directories.
_LAYOUT = "base-files"
_PLAIN = ".unpacking.tar"
_REMEDY = "find out where the package is from; remove it from the cache's debs/ and build again"


def unpack(packages: Sequence[Package], debs: Path, root: Path, tick: Callable[[str, int, int], None]) -> None:
    ordered = sorted(packages, key=lambda package: (package.name != _LAYOUT, package.name))
    root.mkdir(parents=True, exist_ok=True)
    for number, package in enumerate(ordered, start=1):
        tick(f"unpack {package.name}", number, len(ordered))
        unpack_one(package, debs, root)
    for point in MOUNT_POINTS:
        (root / point).mkdir(exist_ok=True)


def unpack_one(package: Package, debs: Path, root: Path) -> None:
    """As dpkg-deb does it, in two steps. Modes are kept, set-id bits with them, so nobody else gets into the folder."""
    what, plain = f"unpacking {package.file_name}", root / _PLAIN
    try:
        save([find("dpkg-deb", "dpkg"), "--fsys-tarfile", take(package, debs)], plain, MOST_BYTES, what=what)
        _check(package.file_name, plain, root)
        run([find("tar", "tar"), "-x", "-p", "--no-same-owner", "-f", plain, "--warning=no-timestamp", "-C", root],
            what=what)
        root.chmod(0o700)
    finally:
        plain.unlink(missing_ok=True)


def _check(name: str, plain: Path, root: Path) -> None:
    try:
        with open_tar(plain, mode="r:") as tar:
            members = list_members(tar)
    except DAMAGE as wrong:
        if isinstance(wrong, OSError) and wrong.errno is not None:
            raise  # the disk's failure, not the package's
        raise BuildError(f"package {name} cannot be read: {wrong}", _REMEDY) from wrong
    real = Path(os.path.realpath(root))

    @cache
    def leads_out(folder: PurePosixPath) -> bool:
        return not Path(os.path.realpath(root / folder)).is_relative_to(real)

    def is_taken(path: PurePosixPath) -> bool:
        return os.path.lexists(root / path) and not (root / path).is_dir()

    findings = tuple(f"{member.name[:200]!r}: {reason}" for member in members
                     for reason in _refuse(member, leads_out, is_taken))
    if findings:
        raise refuse(f"package {name} cannot be unpacked", findings, _REMEDY)


def _refuse(member: tarfile.TarInfo, leads_out: Callable[[PurePosixPath], bool],
            is_taken: Callable[[PurePosixPath], bool]) -> Iterator[str]:
    """A package's own names begin with `./`. What another package has is not its own: dpkg refuses that as well."""
    path = PurePosixPath(member.name)
    if reason := refuse_name(path, member.name):
        yield reason
    elif not is_plain_kind(member):
        yield "is neither a file, nor a folder, nor a link"
    elif reason := refuse_size(member):
        yield reason
    elif path.parts and leads_out(path.parent):
        yield "lies below a link that leads out of the root"
    elif is_taken(path):
        yield "is a file or link of another package"
