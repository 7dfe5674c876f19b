# SPDX-License-Identifier: Apache-2.0
"""What the lab lays over an image: archives of files, each made once and kept by the content of what it is made from.

    base       the first program and the prober
    pci        virtual PCI functions, and nothing else: for an image that has a driver of its own
    hardware   virtual PCI functions, modules of network functions, accounts, ldconfig
    driver     emulated driver, module tree, libraries, firmware, programs; `driver@VERSION`: its modules say that
    extension  the same as a disk with dm-verity, in the form in which Kata attaches it; `extension@RELEASE`: with a
               module tree for that kernel
    module     one module file with something wrong: `module@NAME.DAMAGE` (module_damage.py)
    container  crun with its libraries, the engine that imitates kata-agent's CDI, and a container's root
    tee        an imitated SEV-SNP (tee.py)
    foreign    modprobe, for an init that starts it

None of them replaces the init; all but the agent's path leave the image's own files alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nvrc.vocabulary.needs import SERVES
from nvrc_build import job as jobs
from nvrc_build import pipeline
from nvrc_build.ground.cache import Cache, digest, digest_files
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import silent
from nvrc_build.ground.run import clean_env, run
from nvrc_build.output import disk, pack
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply import compile as compiler
from nvrc_build.supply import supply
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Kind, Origin, Tree
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places
from nvrc_lab.kit import kit_texts, libraries, standins, tee
from nvrc_lab.kit.closure import closure
from nvrc_lab.kit.kit_texts import CONTAINER_CONFIG, DRIVER_TEXTS, IMAGE_TEXTS, LIBRARIES, PLAIN_CONFIG
from nvrc_lab.kit.libraries import DRIVER_LIBRARIES, build_libraries, versioned
from nvrc_lab.kit.standins import DRIVER_VERSION, Workshop
from nvrc_lab.scenario import module_damage

STAGE = "lab-kit"
_ORIGIN = Origin(slice="lab")
_FROM_IMAGE = ("libc.so.6", "ld-linux-x86-64.so.2")
FIRMWARE = ("gsp_ga10x.bin", "gsp_tu10x.bin")
_NETWORK, _NVIDIA, _MODULE_FILES = ("mlx5_core", "mlx5_ib"), ("nvidia", "nvidia_uvm"), {"nvidia_uvm": "nvidia-uvm"}
_SERVED = b"agent\nrdma\n"  # of an image with the lab's network modules over it


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where parts of the kit are made: compile root, root of runtimes, and the modules of the image's kernel."""

    places: Places
    shop: Workshop
    runtime: Path
    tools: Path
    modules: Path


Part = Callable[[Bench, Tree, Path], None]


def find_kit(places: Places, names: Iterable[str]) -> Mapping[str, Path]:
    """The archives by name, made where they are not there yet; that there are any takes no lock and no compiler."""
    cache = Cache(places.cache.resolve())
    found = {name: cache.find(f"{STAGE}-{name}", _key(places, name)) for name in names}
    missing = [name for name, folder in found.items() if folder is None]
    made = make_kit(places, missing) if missing else {}
    return {name: (folder or made[name]) / FILES[name.partition("@")[0]] for name, folder in found.items()}


def make_kit(places: Places, names: Sequence[str]) -> Mapping[str, Path]:
    """One cache object for all: its lock admits its own holder."""
    try:
        bench = open_bench(places)
        return {name: bench.shop.cache.get(f"{STAGE}-{name}", _key(places, name), partial(_make, bench, name))
                for name in names}
    except BuildError as err:
        raise LabError(f"the lab's own files could not be made: {err.what}", err.hint or "run: ./dev boot") from err


def _key(places: Places, name: str) -> str:
    parts = ("kernel", "standins", "standins/nvml", "standins/nscq", "container")
    folders = [places.root / "qemu-tests" / part for part in parts]
    sources = tuple(sorted(path for folder in folders for path in folder.iterdir() if path.is_file()))
    locks = tuple(places.root / "rootfs/locks" / f"{lock}.toml" for lock in ("root-compile", "root-lab", "image-lab"))
    modules = (__file__, kit_texts.__file__, libraries.__file__, module_damage.__file__)
    own = (Path(module).read_bytes() for module in modules)
    return digest(name, DRIVER_VERSION, digest_files((*sources, *locks), places.root), *own)


def open_bench(places: Places) -> Bench:
    shop = standins.open_workshop(places)
    job = pipeline.open_job("lab", cache=places.cache, agent=None, mirror=None, checkout=places.root, progress=silent)
    runtime, tools = supply.root(job.supply, "lab"), supply.root(job.supply, "tools")
    modules = pipeline.make_inputs(job).roots["@modules"]
    return Bench(places=places, shop=shop, runtime=runtime, tools=tools, modules=modules)


def _make(bench: Bench, name: str, out: Path) -> None:
    kind, _, version = name.partition("@")
    tree, work = Tree(), out / "work"
    work.mkdir()
    if kind == EXTENSION:
        _extension(bench, tree, work, version)
        _write_disk(bench, tree, out)
    else:
        make = partial(VARIANTS[kind], version) if version else PARTS[kind]
        make(bench, tree, work)
        with (out / FILES[kind]).open("wb") as stream:
            size = sum(stream.write(piece) for piece in write_cpio(tree, jobs.EPOCH))
            stream.write(b"\0" * (-size % 512))
    if tree.conflicts:
        raise BuildError(f"part {name} of the lab's kit disagrees with itself", findings=tuple(tree.conflicts))
    shutil.rmtree(work)


def _write_disk(bench: Bench, tree: Tree, out: Path) -> None:
    pack.write_erofs(tree, out / "data.erofs", tools=bench.tools, epoch=jobs.EPOCH)
    found = disk.write_disk(out / "data.erofs", out / FILES[EXTENSION])
    (out / "data.erofs").unlink()
    (out / VERITY).write_text(found.parameters(), encoding="ascii")


def _base(bench: Bench, tree: Tree, _work: Path) -> None:
    for source, path in (("labinit", "/lab/init"), ("prober", "/lab/prober")):
        tree.add_file(path, standins.build_program(bench.shop, source), _ORIGIN, mode=0o755)
    tree.add_file("/lab/started", b"", _ORIGIN)


def _pci(bench: Bench, tree: Tree, _work: Path) -> None:
    tree.add_file("/lab/lab_pci.ko", standins.build_modules(bench.shop).files["lab_pci"], _ORIGIN)


def _disks(bench: Bench, tree: Tree, _work: Path) -> None:
    """Built into the kernels that extensions are made for; there disks are on the bus when the init starts."""
    (disks,) = bench.modules.glob("usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko")
    tree.add_file("/lab/virtio_blk.ko", disks, _ORIGIN)


def _hardware(bench: Bench, tree: Tree, work: Path) -> None:
    """What a machine with GPUs has around the driver: PCI functions, RDMA, accounts, the loader's tool."""
    _disks(bench, tree, work)
    built = standins.build_modules(bench.shop)
    tree.add_file("/lab/lab_pci.ko", built.files["lab_pci"], _ORIGIN)
    tree.add_file("/usr/sbin/ldconfig", bench.runtime / "usr/sbin/ldconfig", _ORIGIN, mode=0o755)
    for path, text in IMAGE_TEXTS.items():
        tree.add_file(path, text.encode(), _ORIGIN)
    _add_modules(bench, tree, work, {name: built.files[name] for name in _NETWORK}, has_rdma=True)


def _module(which: str, bench: Bench, tree: Tree, _work: Path) -> None:
    name, _, damage = which.partition(".")
    path = f"/usr/lib/modules/{compiler.headers_release(bench.shop.root)}/updates/{name}.ko"
    if damage == "missing":
        tree.add_link(path, "/lab/nothing", _ORIGIN)
    else:
        image = standins.build_modules(bench.shop).files[name.replace("-", "_")].read_bytes()
        tree.add_file(path, module_damage.DAMAGES[damage](image), _ORIGIN)


def _driver(version: str, bench: Bench, tree: Tree, work: Path) -> None:
    """The driver in the image itself. `version`: what the modules say, while everything else stays as it is."""
    add_driver(bench, tree, work)
    tree.add_file("/etc/ld.so.cache", make_cache(bench, tree, work), _ORIGIN)
    built = standins.build_modules(bench.shop, version)
    _add_modules(bench, tree, work, {name: built.files[name] for name in (*_NETWORK, *_NVIDIA)}, has_rdma=True)


def _extension(bench: Bench, tree: Tree, work: Path, release: str) -> None:
    """The driver as an extension's file system: the same files, a module tree of its own, or of another `release`."""
    for name in ("bin", "lib", "sbin"):
        tree.add_link(f"/{name}", f"usr/{name}", _ORIGIN)
    tree.add_folder("/usr/sbin", _ORIGIN)
    add_driver(bench, tree, work)
    built = standins.build_modules(bench.shop)
    _add_modules(bench, tree, work, {name: built.files[name] for name in _NVIDIA}, over_image=False, release=release)


def add_driver(bench: Bench, tree: Tree, work: Path) -> None:
    nvidia = standins.build_program(bench.shop, "nvidia")
    for program in standins.PROGRAMS:
        if program.source == "nvidia" and not program.path.endswith("nvidia-ctk"):
            tree.add_file(program.path, nvidia, _ORIGIN, mode=0o755)
    tree.add_link("/usr/bin/nvidia-cdi-hook", "/usr/lib/nvrc/nvrc", _ORIGIN)
    for path, text in DRIVER_TEXTS.items():
        tree.add_file(path, text.encode(), _ORIGIN)
    for name in FIRMWARE:
        tree.add_file(f"/usr/lib/firmware/nvidia/{DRIVER_VERSION}/{name}", b"stand-in firmware\n", _ORIGIN)
    _add_libraries(bench, tree, work)


def _add_modules(bench: Bench, tree: Tree, work: Path, files: Mapping[str, Path], *, over_image: bool = True,
                 release: str = "", has_rdma: bool = False) -> None:
    """Modules into the kernel's tree, whose indexes are made anew, with those of the image's own modules in them."""
    base = Path("usr/lib/modules") / (release or compiler.headers_release(bench.shop.root))
    if over_image:
        shutil.copytree(bench.modules / base, work / base)
    (work / base / "updates").mkdir(parents=True, exist_ok=True)
    for name, path in {**files, **(standins.rdma_core(bench.shop) if has_rdma else {})}.items():
        shutil.copyfile(path, work / base / "updates" / f"{_MODULE_FILES.get(name, name)}.ko")
    (work / "lib").symlink_to("usr/lib")  # depmod knows no merged /usr
    argv = ["/usr/sbin/depmod", "-b", "/out", base.name]
    run(sandbox_argv(bench.runtime, argv, env=clean_env(), writable={"/out": work}), what="depmod")
    if has_rdma:
        (work / base / SERVES).write_bytes(_SERVED)
    parts = ("modules.*", SERVES, "updates/*.ko")
    for path in sorted(path for part in parts for path in (work / base).glob(part)):
        tree.add_file(f"/{path.relative_to(work)}", path.read_bytes(), _ORIGIN)


def _add_libraries(bench: Bench, tree: Tree, work: Path) -> None:
    build_libraries(bench.shop, work)
    for soname in DRIVER_LIBRARIES:
        file = versioned(soname)
        tree.add_file(f"{LIBRARIES}/{file}", (work / file).read_bytes(), _ORIGIN)
        tree.add_link(f"{LIBRARIES}/{soname}", file, _ORIGIN)


def make_cache(bench: Bench, tree: Tree, work: Path) -> bytes:
    """The loader's cache that an image with a driver has from its build; the loader searches LIBRARIES anyway."""
    root = work / "cache"
    (root / "etc").mkdir(parents=True)
    (root / LIBRARIES.lstrip("/")).mkdir(parents=True)
    (root / "etc/ld.so.conf").write_text(f"{LIBRARIES}\n", encoding="ascii")
    for entry in tree:
        if entry.path.startswith(f"{LIBRARIES}/") and entry.kind is Kind.FILE:
            (root / entry.path.lstrip("/")).write_bytes(entry.read())
    argv = ["/usr/sbin/ldconfig", "-r", "/out/cache"]
    run(sandbox_argv(bench.runtime, argv, env=clean_env(), writable={"/out": work}), what="ldconfig")
    return (root / "etc/ld.so.cache").read_bytes()


def _container(bench: Bench, tree: Tree, work: Path) -> None:
    build_libraries(bench.shop, work)
    tree.add_file("/lab/engine", standins.build_program(bench.shop, "engine"), _ORIGIN, mode=0o755)
    tree.add_file("/lab/crun/crun", bench.runtime / "usr/bin/crun", _ORIGIN, mode=0o755)
    for path in closure(bench.runtime, "/usr/bin/crun"):
        if path.name not in _FROM_IMAGE:
            tree.add_file(f"/lab/crun/{path.name}", path.read_bytes(), _ORIGIN)
    for name, config in (("config", CONTAINER_CONFIG), ("plain", PLAIN_CONFIG)):
        tree.add_file(f"/lab/bundle/{name}.json", json.dumps(config, indent=1).encode(), _ORIGIN)
    root = "/lab/bundle/rootfs"
    for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr/bin"):
        tree.add_folder(f"{root}/{name}", _ORIGIN)
    for name in ("look", "look-plain", "stay"):
        tree.add_file(f"{root}/{name}", (work / name).read_bytes(), _ORIGIN, mode=0o755)
    for name, folder in (("libc.so.6", LIBRARIES), ("ld-linux-x86-64.so.2", "/usr/lib64")):
        data = (bench.runtime / LIBRARIES.lstrip("/") / name).read_bytes()
        tree.add_file(f"{root}{folder}/{name}", data, _ORIGIN, mode=0o755)
    for name in ("lib", "lib64"):
        tree.add_link(f"{root}/{name}", f"usr/{name}", _ORIGIN)


def _foreign(bench: Bench, tree: Tree, _work: Path) -> None:
    tree.add_file("/usr/sbin/modprobe", bench.runtime / "usr/bin/kmod", _ORIGIN, mode=0o755)
    for path in closure(bench.runtime, "/usr/bin/kmod"):
        if path.name not in _FROM_IMAGE:
            tree.add_file(f"{LIBRARIES}/{path.name}", path.read_bytes(), _ORIGIN)
    tree.add_file("/usr/bin/nvidia-ctk", standins.build_program(bench.shop, "nvidia"), _ORIGIN, mode=0o755)


PARTS: Mapping[str, Part] = {"base": _base, "pci": _pci, "disks": _disks, "hardware": _hardware,
                             "tee": lambda bench, tree, _work: tee.add_modules(bench.shop, tree, _ORIGIN),
                             "driver": partial(_driver, DRIVER_VERSION), "container": _container, "foreign": _foreign}
VARIANTS: Mapping[str, Callable[[str, Bench, Tree, Path], None]] = {"driver": _driver, "module": _module}


EXTENSION, VERITY = "extension", "verity.txt"
FILES: Mapping[str, str] = {**dict.fromkeys((*PARTS, *VARIANTS), "part.cpio"), EXTENSION: "disk.img"}
