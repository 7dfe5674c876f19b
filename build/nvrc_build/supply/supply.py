# SPDX-License-Identifier: Apache-2.0
"""From declarations and locks to unpacked packages in the cache: roots to run programs in, packages to take files from.

The network is touched only for what neither the cache nor a finished stage has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from nvrc_build.declared.declared import Declarations, Image, Root
from nvrc_build.ground.cache import Cache, digest
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress
from nvrc_build.supply import apt, roots
from nvrc_build.supply.apt import Archive, Package, Pin, VanishedError
from nvrc_build.supply.archives import Addresses, find_source
from nvrc_build.supply.lock import compare, read_lock

GIVEN_KERNEL = "@kernel"
KERNEL_PACKAGE = re.compile(r"linux-image-\d.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Where declarations, locks and the cache are, and how to reach archives.

    `packages`: further ones that the caller wants images to take libraries from, not locked.
    """

    rootfs: Path
    declared: Declarations
    cache: Cache
    mirror: str | None
    progress: Progress
    addresses: Addresses = field(default_factory=Addresses)
    packages: tuple[str, ...] = ()


def lock_file(rootfs: Path, kind: str, name: str) -> Path:
    return rootfs / "locks" / f"{kind}-{name}.toml"


def archive_names(row: Root | Image) -> tuple[str, ...]:
    return (row.archive, *(row.further_archives if isinstance(row, Image) else ()))


def open_archive(supply: Supply, row: Root | Image) -> Archive:
    """The archives of a root or an image as one, with their package lists read just now."""
    names, pins = archive_names(row), _pins(supply.declared, row)
    places = [f"{name}={supply.addresses.places.get(name, '')}" for name in names]
    state = supply.cache.folder("apt") / digest(*places, supply.mirror or "", repr(pins))[:16]
    sources = tuple(find_source(supply.declared.archive(name), supply.rootfs, supply.addresses, supply.mirror, state)
                    for name in names)
    archive = Archive(sources=sources, state=state, pins=pins)
    apt.update(archive)
    return archive


def _pins(declared: Declarations, row: Root | Image) -> tuple[Pin, ...]:
    if not isinstance(row, Image) or not row.driver_branch:
        return ()
    return (Pin(packages=declared.driver(row.driver).pins, version=f"{row.driver_branch}."),)


def fetch(supply: Supply, row: Root | Image, kind: str) -> tuple[Package, ...]:
    """The locked packages, all of them in the cache. A drifted archive is an error, or a notice where a lock may."""
    locked = _locked(supply, row, kind)
    debs = supply.cache.folder("debs")
    wanted = [name for name in supply.packages if kind == "image" and name not in {package.name for package in locked}]
    if wanted:
        locked = tuple(sorted({*locked, *_fetch_further(supply, row, wanted)}))
    if all(apt.is_present(package, debs) for package in locked):
        return locked
    with supply.cache.locked():
        return _download(supply, row, locked, debs)


def _locked(supply: Supply, row: Root | Image, kind: str) -> tuple[Package, ...]:
    path = lock_file(supply.rootfs, kind, row.name)
    if not path.is_file():
        raise BuildError(f"{kind} {row.name} has no lock, which says what it is made of",
                         f"run: nvrc-image lock {row.name}, with the same options")
    return read_lock(path)


def _fetch_further(supply: Supply, row: Root | Image, names: Sequence[str]) -> tuple[Package, ...]:
    """Of today's archive, and said so: nothing but the archive's signature holds for them."""
    with supply.cache.locked():
        archive = open_archive(supply, row)
        found = apt.describe(archive, names)
        apt.download(archive, found, supply.cache.folder("debs"))
    for package in found:
        supply.progress(f"not locked: {package.name} {package.version} sha256 {package.sha256}", 0, 1)
    return found


def _download(supply: Supply, row: Root | Image, locked: tuple[Package, ...], debs: Path) -> tuple[Package, ...]:
    archive = open_archive(supply, row)
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
    if not image.kernel or image.kernel == GIVEN_KERNEL:
        return ()
    found = tuple(row for row in apt.resolve(archive, [image.kernel]) if KERNEL_PACKAGE.fullmatch(row.name)
                  and row.name != image.kernel)
    if len(found) != 1:
        raise BuildError(f"{image.kernel} leads to {len(found)} kernels", "name a package with one kernel")
    return found


def packages_key(packages: Sequence[Package]) -> str:
    return digest(*(f"{row.name} {row.sha256}" for row in sorted(packages)))


def root(supply: Supply, name: str) -> Path:
    """An unpacked root by its declared name. One that is there already needs no package any more."""
    row, stage = supply.declared.root(name), f"root-{name}"

    def key(packages: Sequence[Package]) -> str:
        return digest(packages_key(packages), repr(row.links))

    packages = _locked(supply, row, "root")
    if supply.cache.find(stage, key(packages)) is None:
        packages = fetch(supply, row, "root")

    def make(out: Path) -> None:
        roots.unpack(packages, supply.cache.debs, out, supply.progress)
        for link in row.links:
            (out / link.path.lstrip("/")).symlink_to(link.target)

    return supply.cache.get(stage, key(packages), make)


def unpack_each(supply: Supply, packages: Sequence[Package]) -> dict[str, Path]:
    """Every package in a folder of its own, so that a file's package is always known."""
    found = {}
    for number, package in enumerate(packages, start=1):
        supply.progress(f"unpack {package.name}", number, len(packages))
        unpack = partial(roots.unpack_one, package, supply.cache.debs)
        found[package.name] = supply.cache.get("package", package.sha256, unpack, prune=False)
    return found
