# SPDX-License-Identifier: Apache-2.0
"""What an image is made of, gathered for its bills of materials: packages taken from, and what a product embeds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nvrc import __version__
from nvrc_build.ground.cache import digest, digest_files
from nvrc_build.ground.errors import WrongCallError
from nvrc_build.job import ENGINE, EPOCH, Job, Work
from nvrc_build.papers.bill import Component, debian_components, python_components
from nvrc_build.products import init, products
from nvrc_build.supply import supply
from nvrc_build.supply.apt import Package, file_sha256
from nvrc_build.supply.lock import read_lock


def gather_components(job: Job, work: Work) -> tuple[Component, ...]:
    used = {entry.origin.package for entry in work.tree}
    taken = [row for row in work.packages if row.name in used or supply.KERNEL_PACKAGE.fullmatch(row.name)]
    found = debian_components(taken, dict(work.roots))
    if job.wants("@nvrc"):
        found += _embedded(job, work.roots["@nvrc"])
    if job.wants("@nvrc-metrics"):
        modules = (work.roots["@nvrc-metrics"] / "modules.txt").read_text(encoding="utf-8").split()
        found += python_components(init.make_site(job), modules)
        found += own_components(work.roots["@first"])
    return tuple(sorted(set(found)))


def own_components(programs: Path) -> tuple[Component, ...]:
    """This project's own: the frozen init, which is many files, the program that starts it, and the one that waits."""
    files = {"nvrc-first": programs / products.FIRST, "nvrc-await": programs / products.AWAIT}
    sums = {"nvrc": "", **{name: file_sha256(path) for name, path in files.items()}}
    return tuple(Component(kind="generic", name=name, version=__version__, arch="", licences=("Apache-2.0",),
                           sha256=sha256) for name, sha256 in sums.items())


def _embedded(job: Job, frozen: Path) -> tuple[Component, ...]:
    """What slices say a product embeds, of the roots it is made in; of Python packages those with a module in it."""
    names = {name for row in job.slices for name in row.embeds}
    found: dict[str, tuple[Package, Path]] = {}
    for root in ("compile", "tools"):
        locked = read_lock(supply.lock_file(job.supply.rootfs, "root", root))
        found |= {row.name: (row, supply.root(job.supply, root)) for row in locked if row.name in names}
    modules = (frozen / "modules.txt").read_text(encoding="utf-8").split()
    roots = {name: folder for name, (_, folder) in found.items()}
    return (*debian_components([row for row, _ in found.values()], roots),
            *python_components(init.make_site(job), modules))


def write_bills(job: Job, work: Work, out: Path) -> None:
    """The same while what they list is: a change of the init's own code is none of that."""
    components = gather_components(job, work)
    writer = digest_files((ENGINE / "papers/sbom.py", ENGINE / "papers/bill.py"), ENGINE)
    made = job.cache.get("bills", digest(job.image.name, *map(repr, components), writer),
                         lambda folder: make_bills(job.image.name, components, folder))
    shutil.copytree(made, out, dirs_exist_ok=True)


def make_bills(image: str, components: Sequence[Component], out: Path) -> None:
    try:
        # Its libraries take half a second to load; a build that changes nothing of the bills need not pay that.
        from nvrc_build.papers import sbom  # noqa: PLC0415
    except ImportError as missing:
        raise WrongCallError(f"the bills of materials need a Python package that is not installed ({missing.name})",
                             "run: ./dev setup") from missing
    sbom.write_spdx(image, components, out / "sbom.spdx.json", EPOCH)
    sbom.write_cyclonedx(image, components, out / "sbom.cdx.json", EPOCH)
