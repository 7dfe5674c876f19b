# SPDX-License-Identifier: Apache-2.0
"""The open driver: where it is, which version it has, where its libraries lie. Discoverers start from it."""

from __future__ import annotations

from guest_cdi.discover.hooks import HookProgram
from guest_cdi.discover.tree import Tree
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import dataclass
from guest_cdi.spec import NO_EDITS, ContainerEdits, Mount
from guest_cdi.versions import CURRENT, Release

READ_ONLY = ("ro", "nosuid", "nodev", "rbind", "rprivate")

# Libraries whose file name tells the driver version, the better witness first.
WITNESSES = ("libcuda.so.", "libnvidia-ml.so.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a discoverer contributes, in the order found, and which optional things it looked for in vain."""

    edits: ContainerEdits = NO_EDITS
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    tree: Tree
    version: str
    hooks: HookProgram
    library_dirs: tuple[str, ...] = ()      # as the container knows them
    dev_root: str = "/"
    release: Release = CURRENT
    config_dirs: tuple[str, ...] = ("/etc", "/usr/local/share", "/usr/share")
    config_tree: Tree | None = None         # where config_dirs hang, unless it is the driver root
    machine: str = "x86_64"
    kernel_release: str = ""
    explicit_libraries: bool = False
    sockets: bool = True
    node_gids: bool = True

    @property
    def strict(self) -> bool:
        return self.tree.strict

    def bind(self, path: str, options: tuple[str, ...] = READ_ONLY) -> Mount:
        return Mount(host_path=path, container_path=self.tree.inside(path), options=options)


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def basename(path: str) -> str:
    return path.rpartition("/")[2]


def join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def find_version(tree: Tree) -> str:
    """The version by the suffix of the driver's own libraries, for when NVML does not tell."""
    for stem in WITNESSES:
        for path in tree.find_libraries(f"{stem}*.*"):
            return basename(path).removeprefix(stem)
    raise CdiError("E_CDI_DRIVER_VERSION",
                   f"neither NVML nor a libcuda.so.* or libnvidia-ml.so.* in {', '.join(tree.library_dirs())} tells it")


def find_library_dirs(tree: Tree, version: str, release: Release) -> tuple[str, ...]:
    """Every directory with libraries of this version, as the container knows it, in order of discovery."""
    witness = _find_witness(tree, version, WITNESSES if release.nvml_is_witness else WITNESSES[:1])
    libraries = tree.find_libraries(f"lib*.so.{version}") if release.all_library_dirs else (witness,)
    if not libraries:
        raise CdiError("E_CDI_DRIVER_VERSION", f"the libraries of driver {version} beside {witness} cannot be listed")
    directories = dict.fromkeys(parent(path) for path in libraries)
    # The reference knows the root of an extension as an empty string, and then does not search it.
    blank = tree.root if not tree.strict else None
    return tuple("" if blank and directory == blank else tree.inside(directory) for directory in directories)


def _find_witness(tree: Tree, version: str, stems: tuple[str, ...]) -> str:
    for stem in stems:
        found = tree.find_libraries(f"{stem}{version}")
        if found:
            return _check_witness(found[0], stem, version)
    raise CdiError("E_CDI_DRIVER_VERSION", f"no library of driver {version} in {', '.join(tree.library_dirs())}")


def _check_witness(path: str, stem: str, version: str) -> str:
    actual = basename(path).removeprefix(stem)
    if actual != version:
        raise CdiError("E_CDI_DRIVER_MISMATCH", f"{stem}{version} leads to {path}, which is of version {actual}")
    return path


def check_userspace(tree: Tree, version: str) -> None:
    """One driver version on disk, the running one, with libcuda: anything else yields containers without CUDA."""
    found = {basename(path).removeprefix(WITNESSES[0]): path for path in tree.find_libraries(f"{WITNESSES[0]}*.*")}
    mine = found.pop(version, None)
    if mine is None and found:
        other, path = next(iter(found.items()))
        raise CdiError("E_CDI_DRIVER_MISMATCH", f"the running driver is {version}, but {path} is of version {other}")
    if mine is None:
        raise CdiError("E_CDI_LIBCUDA", f"libcuda.so.{version} is in none of {', '.join(tree.library_dirs())}")
    if found:
        other, path = next(iter(found.items()))
        raise CdiError("E_CDI_DRIVER_MISMATCH", f"{mine} of the running driver lies beside {path} of version {other}",
                       "remove the libraries of the version that does not run")
