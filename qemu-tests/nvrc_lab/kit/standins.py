# SPDX-License-Identifier: Apache-2.0
"""Compile the lab's own C: stand-in programs (static) and the modules of virtual hardware and emulated driver.

Everything is compiled in the image factory's compile root, with the guest kernel's own compiler and headers, so a
machine needs neither gcc nor headers of its own. Results are cached by the content of what they are made of.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc_build import pipeline
from nvrc_build.ground.cache import Cache, digest, digest_files
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress, silent
from nvrc_build.supply import compile as compiler
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places

# The version the emulated driver claims; NVIDIA's user space in an image must be of the same one.
DRIVER_VERSION = "550.163.01"

# Without debug information: the guest keeps every byte of its initrd in memory.
_MODULE_FLAGS = ("KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES=")
# The kernel's own, above the emulated RDMA devices and below programs; in the order of loading.
RDMA_CORE = ("ib_core", "ib_uverbs", "ib_umad", "iw_cm", "ib_cm", "configfs", "rdma_cm", "rdma_ucm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A stand-in: its source's name, and the path at which a guest expects what it stands in for.

    One source may serve several paths: it acts by the name it is started as.
    """

    source: str
    path: str


PROGRAMS: tuple[Program, ...] = (
    Program(source="labinit", path="/lab/init"),
    Program(source="prober", path="/lab/prober"),
    Program(source="agent", path="/usr/bin/kata-agent"),
    Program(source="engine", path="/lab/engine"),
    Program(source="nvidia", path="/usr/bin/nvidia-persistenced"),
    Program(source="nvidia", path="/usr/bin/nv-fabricmanager"),
    Program(source="nvidia", path="/usr/sbin/nvlsm"),
    Program(source="nvidia", path="/usr/bin/nv-hostengine"),
    Program(source="nvidia", path="/usr/bin/dcgm-exporter"),
    Program(source="nvidia", path="/usr/bin/nvidia-smi"),
    Program(source="nvidia", path="/usr/bin/nvidia-ctk"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """Modules for one kernel release, by name as in lsmod."""

    release: str
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where sources are and results go. One root serves many compilations."""

    checkout: Path
    cache: Cache
    root: Path

    @property
    def programs(self) -> Path:
        return self.checkout / "qemu-tests/standins"

    @property
    def kernel(self) -> Path:
        return self.checkout / "qemu-tests/kernel"

    def key(self, sources: tuple[Path, ...], *words: str) -> str:
        return digest(digest_files(sources, self.checkout), self.root.name, *words,
                      Path(compiler.__file__).read_bytes())


def open_workshop(places: Places, progress: Progress = silent) -> Workshop:
    """The compile root is fetched and unpacked at first use."""
    try:
        root = pipeline.headers(places.cache, checkout=places.root, progress=progress)
    except BuildError as err:
        raise LabError(f"no compiler for the lab's programs: {err.what}", err.hint or "run: ./dev boot") from err
    return Workshop(checkout=places.root, cache=Cache(places.cache.resolve()), root=root)


def build_program(shop: Workshop, name: str) -> Path:
    sources = compiler.program_sources(shop.programs, name)
    if not sources[0].parent.joinpath(f"{name}.c").is_file():
        raise LabError(f"no stand-in {name}", f"known: {', '.join(program.source for program in PROGRAMS)}")
    shared = tuple(sorted(shop.programs.glob("*.h")))

    def compile_one(out: Path) -> None:
        compiler.compile_static(sources, out, root=shop.root)

    return _finished(shop, f"standin-{name}", shop.key((*sources, *shared)), compile_one) / "program"


def build_modules(shop: Workshop, version: str = DRIVER_VERSION) -> Modules:
    """Every module of qemu-tests/kernel for the image's kernel; the driver says it is `version`."""
    sources = tuple(sorted(path for path in shop.kernel.iterdir() if path.is_file()))

    def compile_all(out: Path) -> None:
        for path in compiler.compile_modules(shop.kernel, out, root=shop.root,
                                             variables=(*_MODULE_FLAGS, f"NV_VERSION={version}")):
            path.rename(out / path.name)
        shutil.rmtree(out / "work")

    folder = _finished(shop, "lab-modules", shop.key(sources, version, *_MODULE_FLAGS), compile_all)
    return Modules(release=compiler.headers_release(shop.root),
                   files={path.stem.replace("-", "_"): path for path in sorted(folder.glob("*.ko"))})


def rdma_core(shop: Workshop) -> Mapping[str, Path]:
    """Modules of the very kernel whose headers the others are built against, unpacked, by name as in lsmod."""
    def unpack(out: Path) -> None:
        folder = shop.root / "usr/lib/modules" / compiler.headers_release(shop.root) / "kernel"
        found = {path.name.partition(".")[0]: path for path in folder.rglob("*.ko.xz")}
        for name in RDMA_CORE:
            (out / f"{name}.ko").write_bytes(lzma.decompress(found[name].read_bytes()))

    folder = _finished(shop, "lab-rdma-core", shop.key((), *RDMA_CORE), unpack)
    return {name: folder / f"{name}.ko" for name in RDMA_CORE}


def _finished(shop: Workshop, stage: str, key: str, make: Callable[[Path], None]) -> Path:
    """A result that is there needs no lock: nobody has to wait for another build of something else."""
    found = shop.cache.find(stage, key)
    if found is not None:
        return found
    try:
        return shop.cache.get(stage, key, make)
    except BuildError as err:
        raise LabError(err.what, "\n".join((err.hint, *err.findings))) from err
