# SPDX-License-Identifier: Apache-2.0
"""One function per stage: what is known so far in, the same with its own findings added out.

The first four make inputs, each cached by the content of what it reads. The last four make the image from them and
run only when an input has changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from nvrc_build.declared.declared import Format, Image, Layout
from nvrc_build.ground.errors import BuildError
from nvrc_build.job import EPOCH, Job, Work
from nvrc_build.output import disk
from nvrc_build.output import pack as packer
from nvrc_build.papers.manifest import write_manifest
from nvrc_build.papers.papers import write_bills
from nvrc_build.products import kernel as kernels
from nvrc_build.products import line_policy, products
from nvrc_build.products.agent_policy import missing_policy
from nvrc_build.products.kconfig import check_kernel, modules_in
from nvrc_build.supply import supply
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.scripts import unexplained_scripts
from nvrc_build.supply.suggest import suggest
from nvrc_build.tree.assemble import check_tree, close_libraries, select_tree
from nvrc_build.tree.pool import Pool

KERNEL, INITRD, DISK = "vmlinuz", "initrd", "disk.img"


def fetch(job: Job, work: Work) -> Work:
    return replace(work, packages=supply.fetch(job.supply, job.image, "image"))


def unpack(job: Job, work: Work) -> Work:
    """And what the caller brought in a package's place."""
    return _make_products(job, replace(work, roots=supply.unpack_each(job.supply, work.packages)), products.GIVEN)


def modules(job: Job, work: Work) -> Work:
    return _make_products(job, work, products.MODULES)


def freeze(job: Job, work: Work) -> Work:
    return _make_products(job, work, products.PROGRAMS)


def _make_products(job: Job, work: Work, makers: Mapping[str, products.Maker]) -> Work:
    made = {name: make(job, work) for name, make in makers.items() if job.wants(name)}
    return replace(work, roots={**work.roots, **made})


def select(job: Job, work: Work) -> Work:
    """What the slices declare and take; the tree of the image below it, for an extension."""
    tree, findings = select_tree(job.slices, Pool(work.roots), job.files)
    if line_policy.PRODUCT in work.roots:
        line_policy.put_given(tree, work.roots[line_policy.PRODUCT])
    return replace(work, tree=tree, findings=tuple(findings))


def assemble(job: Job, work: Work) -> Work:
    """The libraries that the selected programs need, and every check of the whole."""
    remedy = partial(suggest, apt=job.cache.root / "apt")
    findings = [*work.findings, *close_libraries(work.tree, Pool(work.roots), work.below, remedy)]
    findings += check_tree(job.slices, work.tree, work.below) + missing_policy(work.tree)
    findings += line_policy.wrong_policy(work.tree)
    used = {entry.origin.package for entry in work.tree}
    below = job.declared.slices_of(job.declared.image(job.image.over)) if job.image.over else ()
    findings += unexplained_scripts((*job.slices, *below), used, work.packages, job.cache.debs)
    if findings:
        number = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
        raise BuildError(f"image {job.image.name} cannot be assembled, {number}", findings=tuple(findings))
    return work


def measure(job: Job, work: Work, out: Path) -> Work:
    """The archive or file system, and the hashes that a verifier will compare."""
    tools = supply.root(job.supply, "tools")
    if job.image.kernel:
        root = products.kernel_root(work)
        check_kernel(job.image, kernels.read_config(root), modules_in(work.tree))
        if job.image.layout is Layout.ROOT:
            shutil.copyfile(kernels.image_path(root), out / KERNEL)
    if job.image.format is Format.INITRD:
        packer.write_initrd(work.tree, out / INITRD, job.image.compression, tools=tools, epoch=EPOCH)
        return work
    packer.write_filesystem(job.image.filesystem, work.tree, out / "data", tools=tools, epoch=EPOCH)
    found = disk.write_disk(out / "data", out / DISK)
    (out / "data").unlink()
    (out / "verity.txt").write_text(f"{found.parameters()}\n", encoding="ascii")
    return replace(work, parameters=found.parameters())


def pack(job: Job, work: Work, out: Path) -> Work:
    """What lies beside the image: manifest, bills of materials; and the size budget."""
    check_budget(job.image, out / (INITRD if job.image.format is Format.INITRD else DISK))
    write_bills(job, work, out)
    signing = products.copy_signing(job, work, out)
    parts = {path.name: file_sha256(path) for path in sorted(out.iterdir())}
    modules = products.describe_modules(job, work)
    (out / "manifest.json").write_bytes(write_manifest(job.image, work, parts, signing, modules))
    return work


def check_budget(image: Image, path: Path) -> None:
    size = path.stat().st_size
    if size > image.budget_bytes:
        raise BuildError(f"{image.name}: {path.name} is {size} bytes, its budget is {image.budget_bytes}",
                         "find what grew with: nvrc-image diff, or raise budget_mb in the image's declaration")
