# SPDX-License-Identifier: Apache-2.0
"""From declarations to an image: the stages, in order, each cached by the content of what it reads.

A stage's key is the digest of its inputs, so a change of one Python file of the init freezes and packs again and
leaves the rest alone. The finished image replaces an earlier one in a single rename.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nvrc_build import compile as compiler
from nvrc_build import freeze as freezer
from nvrc_build import kernel as kernels
from nvrc_build import manifest, pack, supply, wheels
from nvrc_build.apt import Package, file_sha256
from nvrc_build.assemble import assemble
from nvrc_build.cache import Cache, digest, digest_files
from nvrc_build.errors import BuildError
from nvrc_build.manifest import Declarations
from nvrc_build.pool import Pool
from nvrc_build.progress import Progress, silent
from nvrc_build.report import write_manifest
from nvrc_build.supply import Supply
from nvrc_build.tree import Tree

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE = Path(__file__).resolve().parent

# 2025-01-01; every time stamp in an image. A build has no other clock.
EPOCH = 1735689600


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A finished image; paths of its parts."""

    profile: str
    folder: Path
    kernel: Path
    initrd: Path
    manifest: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one build works on: nothing here changes while it runs."""

    image: manifest.Image
    declared: Declarations
    supply: Supply
    checkout: Path
    agent: Path | None

    @property
    def cache(self) -> Cache:
        return self.supply.cache


def build(profile: str = "lab", *, out: Path | None = None, agent: Path | None = None, cache: Path | None = None,
          mirror: str | None = None, checkout: Path = CHECKOUT, progress: Progress = silent) -> Image:
    """Build an image into `out`/images/`profile` and say where its parts are."""
    out = (out or checkout / "out").resolve()
    job = open_job(profile, cache=cache or out / "cache", agent=agent, mirror=mirror, checkout=checkout,
                   progress=progress)
    with job.cache.locked(lambda line: progress(line, 0, 0)):
        made = make(job)
    return publish(made, out / "images" / profile, profile)


def open_job(profile: str, *, cache: Path, agent: Path | None, mirror: str | None, checkout: Path,
             progress: Progress) -> Job:
    declared = manifest.load(checkout / "rootfs")
    image = declared.image(profile)
    if not image.buildable:
        raise BuildError(f"image {profile} is declared but cannot be built here", image.summary)
    if agent is not None and not agent.is_file():
        raise BuildError(f"agent {agent} does not exist", "give --agent the path of a kata-agent binary")
    store = Cache(cache.resolve())
    things = Supply(rootfs=checkout / "rootfs", declared=declared, cache=store, mirror=mirror, progress=progress)
    return Job(image=image, declared=declared, supply=things, checkout=checkout, agent=agent)


def make(job: Job) -> Path:
    """All stages; the folder of the finished one."""
    progress = job.supply.progress
    progress("fetch", 0, 0)
    packages = supply.fetch(job.supply, job.image, "image")
    progress("stage", 0, 0)
    roots = supply.unpack_each(job.supply, packages)
    kernel_root = _kernel_root(roots, packages)
    progress("modules", 0, 0)
    roots["@modules"] = stage_modules(job, kernel_root)
    progress("freeze", 0, 0)
    roots["@nvrc"] = stage_freeze(job)
    roots["@agent"] = stage_agent(job)
    return stage_image(job, packages, roots, kernel_root)


def _kernel_root(roots: dict[str, Path], packages: tuple[Package, ...]) -> Path:
    return next(roots[row.name] for row in packages if row.name.startswith("linux-image-"))


def stage_modules(job: Job, kernel_root: Path) -> Path:
    key = digest(kernel_root.name, *job.image.modules, (ENGINE / "kernel.py").read_bytes())

    def run(out: Path) -> None:
        chosen = kernels.select_modules(kernel_root, job.image.modules)
        kernels.write_modules(chosen, kernel_root, out / "usr/lib/modules" / kernels.find_release(kernel_root))

    return job.cache.get("modules", key, run)


def stage_site(job: Job) -> Path:
    lock = wheels.lock_path(job.checkout)
    return job.cache.get("site", digest(lock.read_bytes()), lambda out: wheels.install(lock, out))


def stage_freeze(job: Job) -> Path:
    sources = freezer.source_files(job.checkout)
    tools, site = supply.root(job.supply, "tools"), stage_site(job)
    key = digest(digest_files(sources, job.checkout), tools.name, site.name, (ENGINE / "freeze.py").read_bytes())

    def run(out: Path) -> None:
        frozen = freezer.freeze(job.checkout, root=tools, site=site, out=out, epoch=EPOCH)
        (out / "usr/lib").mkdir(parents=True)
        frozen.rename(out / "usr/lib/nvrc")

    return job.cache.get("freeze", key, run)


def stage_agent(job: Job) -> Path:
    """The given agent, or the stand-in that the lab brings, compiled in the pinned root."""
    if job.agent is not None:
        given = job.agent
        return job.cache.get("agent", file_sha256(given), lambda out: _install_agent(given, out))
    standins = job.checkout / "qemu-tests/standins"
    sources = compiler.program_sources(standins, "agent")
    if not sources[0].is_file():
        raise BuildError("no agent", "give one with --agent PATH")
    root = supply.root(job.supply, "compile")
    key = digest(digest_files((*sources, *sorted(standins.glob("*.h"))), standins), root.name,
                 (ENGINE / "compile.py").read_bytes())

    def run(out: Path) -> None:
        program = compiler.compile_static(sources, out, root=root)
        _install_agent(program, out)
        program.unlink()

    return job.cache.get("agent", key, run)


def _install_agent(program: Path, out: Path) -> None:
    target = out / "usr/bin/kata-agent"
    target.parent.mkdir(parents=True)
    shutil.copyfile(program, target)
    target.chmod(0o755)


def stage_image(job: Job, packages: tuple[Package, ...], roots: dict[str, Path], kernel_root: Path) -> Path:
    slices = job.declared.slices_of(job.image)
    tools = supply.root(job.supply, "tools")
    key = digest(repr(job.image), *map(repr, slices), *(path.name for path in roots.values()), tools.name,
                 digest_files(tuple(sorted((job.checkout / "rootfs/files").rglob("*.*"))), job.checkout),
                 digest_files(tuple(sorted(ENGINE.glob("*.py"))), ENGINE))

    def run(out: Path) -> None:
        job.supply.progress("assemble", 0, 0)
        tree = assemble(slices, Pool(roots), job.checkout / "rootfs/files")
        job.supply.progress("pack", 0, 0)
        shutil.copyfile(kernels.image_path(kernel_root), out / "vmlinuz")
        pack.write_initrd(tree, out / "initrd", tools=tools, epoch=EPOCH)
        check_budget(job.image, out / "initrd")
        write_image_manifest(out, job, tree, packages)

    return job.cache.get(f"image-{job.image.name}", key, run)


def check_budget(image: manifest.Image, path: Path) -> None:
    size = path.stat().st_size
    if size > image.budget_bytes:
        raise BuildError(f"{image.name}: {path.name} is {size} bytes, its budget is {image.budget_bytes}",
                         "find what grew with: nvrc-image diff, or raise budget_mb in the image's declaration")


def write_image_manifest(out: Path, job: Job, tree: Tree, packages: tuple[Package, ...]) -> None:
    parts = {path.name: file_sha256(path) for path in sorted(out.iterdir())}
    (out / "manifest.json").write_bytes(write_manifest(job.image, tree, packages, parts))


def publish(made: Path, target: Path, profile: str) -> Image:
    """Put the finished image where people look for it; an earlier one stays whole until the new one is complete."""
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    if not _is_same(made, target):
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(made, fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    return Image(profile=profile, folder=target, kernel=target / "vmlinuz", initrd=target / "initrd",
                 manifest=target / "manifest.json")


def _is_same(made: Path, target: Path) -> bool:
    def stamp(folder: Path) -> dict[str, tuple[int, str]]:
        return {path.name: (path.stat().st_size, file_sha256(path)) for path in folder.iterdir()}

    return target.is_dir() and stamp(made) == stamp(target)


def headers(cache: Path, *, checkout: Path = CHECKOUT, mirror: str | None = None,
            progress: Progress = silent) -> Path:
    """A root with the compiler and the headers of the lab image's kernel; hand it to compile.compile_modules."""
    declared = manifest.load(checkout / "rootfs")
    store = Cache(cache.resolve())
    things = Supply(rootfs=checkout / "rootfs", declared=declared, cache=store, mirror=mirror, progress=progress)
    with store.locked(lambda line: progress(line, 0, 0)):
        return supply.root(things, "compile")
