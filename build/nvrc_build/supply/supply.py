# SPDX-License-Identifier: Apache-2.0
"""From declarations and locks to unpacked packages in the cache: roots to run programs in, packages to take files from.

The network is touched only for what neither the cache nor a finished stage has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nvrc_build.declared.declared import Declarations, Image, Root
from nvrc_build.ground.cache import Cache, digest
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress
from nvrc_build.supply import apt, roots
from nvrc_build.supply.apt import Archive, Package, VanishedError
from nvrc_build.supply.lock import compare, read_lock
from nvrc_build.supply.mirror import choose_mirror

KERNEL_PACKAGE = re.compile(r"linux-image-\d.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Where declarations, locks and the cache are, and how to reach archives."""

    rootfs: Path
    declared: Declarations
    cache: Cache
    mirror: str | None
    progress: Progress


def lock_file(rootfs: Path, kind: str, name: str) -> Path:
    return rootfs / "locks" / f"{kind}-{name}.toml"


def open_archive(supply: Supply, name: str) -> Archive:
    """The archive with its package lists read just now."""
    row = supply.declared.archive(name)
    uri = choose_mirror(row.distribution, row.suite, supply.mirror)
    state = supply.cache.folder("apt") / digest(name, uri, *row.components)[:16]
    archive = Archive(uri=uri, suite=row.suite, components=row.components, keyring=Path(row.keyring), state=state)
    apt.update(archive)
    return archive


def fetch(supply: Supply, row: Root | Image, kind: str) -> tuple[Package, ...]:
    """The locked packages, all of them in the cache. A drifted archive is an error, or a notice where a lock may."""
    locked = read_lock(lock_file(supply.rootfs, kind, row.name))
    debs = supply.cache.folder("debs")
    if all(apt.is_present(package, debs) for package in locked):
        return locked
    with supply.cache.locked():
        return _download(supply, row, locked, debs)


def _download(supply: Supply, row: Root | Image, locked: tuple[Package, ...], debs: Path) -> tuple[Package, ...]:
    archive = open_archive(supply, row.archive)
    try:
        apt.download(archive, locked, debs)
    except VanishedError:
        if row.lock_required:
            raise
        current = resolve(supply, archive, row)
        for line in compare(locked, current):
            supply.progress(f"not as locked: {line}", 0, 1)
        apt.download(archive, current, debs)
        return current
    return locked


def resolve(supply: Supply, archive: Archive, row: Root | Image) -> tuple[Package, ...]:
    """What the archive has today: all that a root's programs need to run; of an image, just what its slices name.

    What an image's files need beyond that shows in its ELF closure, and is then named by a slice or refused.
    """
    if isinstance(row, Root):
        return apt.resolve(archive, row.packages)
    names = image_packages(supply.declared, row)
    named = apt.describe(archive, names) if names else ()
    return tuple(sorted({*named, *_kernel_package(archive, row)}))


def image_packages(declared: Declarations, image: Image) -> tuple[str, ...]:
    """Every package that the image's slices take from."""
    slices = declared.slices_of(image)
    named = {take.package for row in slices for take in row.takes}
    named |= {package for row in slices for package in row.libraries}
    named |= {filelist.package for row in slices for filelist in row.filelists}
    named |= {declared.driver(image.driver).package} if image.driver else set()
    return tuple(sorted(name for name in named if not name.startswith("@")))


def _kernel_package(archive: Archive, image: Image) -> tuple[Package, ...]:
    """The one package that carries the kernel: the declared name is a meta package which depends on it."""
    if not image.kernel:
        return ()
    found = tuple(row for row in apt.resolve(archive, [image.kernel]) if KERNEL_PACKAGE.fullmatch(row.name)
                  and row.name != image.kernel)
    if len(found) != 1:
        raise BuildError(f"{image.kernel} leads to {len(found)} kernels", "name a package with one kernel")
    return found


def packages_key(packages: Sequence[Package]) -> str:
    return digest(*(f"{row.name} {row.sha256}" for row in sorted(packages)))


def root(supply: Supply, name: str) -> Path:
    """An unpacked root by its declared name."""
    row = supply.declared.root(name)
    packages = fetch(supply, row, "root")

    def make(out: Path) -> None:
        roots.unpack(packages, supply.cache.debs, out, supply.progress)
        for link in row.links:
            (out / link.path.lstrip("/")).symlink_to(link.target)

    return supply.cache.get(f"root-{name}", digest(packages_key(packages), repr(row.links)), make)


def unpack_each(supply: Supply, packages: Sequence[Package]) -> dict[str, Path]:
    """Every package in a folder of its own, so that a file's package is always known."""
    found = {}
    for number, package in enumerate(packages, start=1):
        supply.progress(f"unpack {package.name}", number, len(packages))
        unpack = partial(roots.unpack_one, package, supply.cache.debs)
        found[package.name] = supply.cache.get("package", package.sha256, unpack, prune=False)
    return found
