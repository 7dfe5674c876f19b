# SPDX-License-Identifier: Apache-2.0
"""From declarations to an image: the stages, in order. The finished image replaces an earlier one by a rename."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nvrc_build import stages
from nvrc_build.ground.cache import digest, digest_files
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.exchange import exchange
from nvrc_build.ground.holding import Patience, hold, tell_on_stderr
from nvrc_build.ground.progress import Progress, silent
from nvrc_build.job import CHECKOUT, ENGINE, NOTHING, Brought, Job, Work, default_out, open_job, open_supply
from nvrc_build.supply import supply
from nvrc_build.supply.apt import file_sha256

__all__ = ["CHECKOUT", "STAGES", "BuildError", "Image", "build", "headers", "make", "open_job", "publish"]

# Each makes an input of the image and keeps it in the cache under the digest of what it was made from.
INPUTS: tuple[tuple[str, Callable[[Job, Work], Work]], ...] = (
    ("fetch", stages.fetch),
    ("stage", stages.unpack),
    ("modules", stages.modules),
    ("freeze", stages.freeze),
)
# These make a tree of the inputs, in memory.
TREE: tuple[tuple[str, Callable[[Job, Work], Work]], ...] = (
    ("select", stages.select),
    ("assemble", stages.assemble),
)
# And these make the image of the tree, in the folder they are given.
IMAGE: tuple[tuple[str, Callable[[Job, Work, Path], Work]], ...] = (
    ("measure", stages.measure),
    ("pack", stages.pack),
)
STAGES = tuple(name for name, _ in (*INPUTS, *TREE, *IMAGE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A finished image and its parts; a part that the format does not have does not exist."""

    profile: str
    folder: Path
    manifest: Path
    kernel: Path
    initrd: Path
    disk: Path
    verity: Path


def build(profile: str = "lab", *, out: Path | None = None, agent: Path | str | None = None,
          components: Path | str | None = None, policy: Path | str | None = None,
          line_policy: Path | str | None = None, cache: Path | None = None, mirror: str | None = None,
          checkout: Path = CHECKOUT, progress: Progress = silent, limit_s: float | None = None,
          brought: Brought = NOTHING) -> Image:
    """Build an image into `out`/images/`profile` and say where its parts are. The cache is in `out` by default.

    `limit_s`: how long to wait for another build that makes the same thing.
    """
    out = (out or default_out(checkout)).resolve()
    job = open_job(profile, cache=cache or out / "cache", agent=agent, components=components, policy=policy,
                   line_policy=line_policy, mirror=mirror, checkout=checkout, progress=progress, limit_s=limit_s,
                   brought=brought)
    return publish(make(job), out / "images" / profile, profile, Patience(tell=tell_on_stderr, limit_s=limit_s))


def make(job: Job) -> Path:
    """The cache entry of the finished image; made anew when any of its inputs is."""
    work = make_inputs(job)

    def make_image(out: Path) -> None:
        done = make_tree(job, work)
        for name, run in IMAGE:
            job.supply.progress(name, 0, 0)
            done = run(job, done, out)

    return job.cache.get(f"image-{job.image.name}", image_key(job, work), make_image)


def make_inputs(job: Job) -> Work:
    work = Work()
    for name, run in INPUTS:
        job.supply.progress(name, 0, 0)
        work = run(job, work)
    return work


def make_tree(job: Job, work: Work) -> Work:
    """An extension is assembled against the tree of the image it will be mounted over."""
    if job.image.over:
        lower = replace(job, image=job.declared.image(job.image.over))
        work = replace(work, below=make_tree(lower, make_inputs(lower)).tree)
    for name, run in TREE:
        job.supply.progress(name, 0, 0)
        work = run(job, work)
    return work


def image_key(job: Job, work: Work) -> str:
    images = [job.image, *([job.declared.image(job.image.over)] if job.image.over else [])]
    declared = [repr(image) + repr(job.declared.slices_of(image)) for image in images]
    files = tuple(path for path in sorted(job.files.rglob("*")) if path.is_file())
    return digest(*declared, *(f"{name} {path.name}" for name, path in sorted(work.roots.items())),
                  supply.root(job.supply, "tools").name, digest_files(files, job.files),
                  digest_files(tuple(sorted(ENGINE.rglob("*.py"))), ENGINE))


def publish(made: Path, target: Path, profile: str, patience: Patience) -> Image:
    """Put the finished image where people look for it: one rename, so there is always a whole one, old or new."""
    if not _is_same(made, target):
        with hold(target.parent / ".lock", patience, what=f"image {profile}"):
            fresh = target.with_name(f".{target.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(made, fresh)
            if target.exists():
                exchange(fresh, target)
                shutil.rmtree(fresh)
            else:
                fresh.rename(target)
    return Image(profile=profile, folder=target, manifest=target / "manifest.json", kernel=target / stages.KERNEL,
                 initrd=target / stages.INITRD, disk=target / stages.DISK, verity=target / "verity.txt")


def _is_same(made: Path, target: Path) -> bool:
    def stamp(folder: Path) -> dict[str, tuple[int, str]]:
        return {path.name: (path.stat().st_size, file_sha256(path)) for path in folder.iterdir()}

    try:
        return stamp(made) == stamp(target)
    except FileNotFoundError:
        # Not there yet, or another build is just replacing it.
        return False


def headers(cache: Path, *, checkout: Path = CHECKOUT, mirror: str | None = None,
            progress: Progress = silent) -> Path:
    """A root with the compiler and the headers of the lab image's kernel; hand it to compile.compile_modules."""
    opened = open_supply(cache=cache, mirror=mirror, checkout=checkout, progress=progress)
    return supply.root(opened, "compile")


def describe(image: Image) -> dict[str, str]:
    """The parts that exist, by name, for machines."""
    parts = {"manifest": image.manifest, "kernel": image.kernel, "initrd": image.initrd, "disk": image.disk,
             "verity": image.verity}
    return {"profile": image.profile, **{name: str(path) for name, path in parts.items() if path.is_file()}}
