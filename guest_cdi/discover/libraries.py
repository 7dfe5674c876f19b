# SPDX-License-Identifier: Apache-2.0
"""The driver's libraries, the links that programs expect beside them, and the hooks that make a container see them.

There is no list of names: every library whose file name ends in the driver version belongs to the driver.
"""

from __future__ import annotations

import os
import stat

from guest_cdi.discover.driver import Driver, Found, basename, join, parent
from guest_cdi.discover.hooks import (
    DISABLE_NODE_MODIFICATION,
    ENABLE_CUDA_COMPAT,
    UPDATE_LDCACHE,
    repeat,
)
from guest_cdi.discover.tree import matches
from guest_cdi.elf import ElfError, read_soname
from guest_cdi.host import Kind
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Iterable, Iterator
from guest_cdi.spec import ContainerEdits, Hook, Mount

LEGACY_NVVM = "libnvidia-nvvm70.so.*"

# Libraries without a version in their name, for callers that ask for them.
EXPLICIT = ("libEGL.so", "libGL.so", "libGLESv1_CM.so", "libGLESv2.so", "libGLX.so", "libGLdispatch.so", "libOpenCL.so",
            "libOpenGL.so", "libnvidia-api.so", "libnvidia-egl-xcb.so", "libnvidia-egl-xlib.so")

# Links that the driver's installers forget: library, target ("" is the file itself), link.
FORGOTTEN_LINKS = (
    ("libcuda.so.*.*", "libcuda.so.1", "libcuda.so"),
    ("libGLX_nvidia.so.*.*", "", "libGLX_indirect.so.0"),
    ("libnvidia-opticalflow.so.*.*", "libnvidia-opticalflow.so.1", "libnvidia-opticalflow.so"),
)


def find_libraries(driver: Driver) -> Found:
    missing: list[str] = []
    mounts = (*_find_versioned(driver, missing), *_find_named(driver, missing))
    links = dict.fromkeys(link for mount in _each_container_path(mounts) for link in _link(driver, mount, missing))
    hooks = (
        *driver.hooks.link(links),
        *driver.hooks.write(ENABLE_CUDA_COMPAT, (f"--host-driver-version={driver.version}",)),
        *_update_ldcache(driver, mounts),
        *driver.hooks.write(DISABLE_NODE_MODIFICATION),
    )
    env = (f"NVIDIA_CTK_LIBCUDA_DIR={':'.join(driver.library_dirs)}",)
    return Found(edits=ContainerEdits(env=env, mounts=mounts, hooks=hooks), missing=tuple(missing))


def _find_versioned(driver: Driver, missing: list[str]) -> Iterator[Mount]:
    tree = driver.tree
    directories = (*filter(None, driver.library_dirs), *(f"{directory}/vdpau" for directory in driver.library_dirs))
    for path in tree.find_real(directories, f"*.so.{driver.version}"):
        # A link may lead out of the driver root: then its target counts only if the root has it, too.
        place = tree.place(tree.inside(path))
        if place == path or tree.is_file(place):
            yield driver.bind(place)
        else:
            missing.append(place)


def _find_named(driver: Driver, missing: list[str]) -> Iterator[Mount]:
    wanted = (*((LEGACY_NVVM,) if driver.release.legacy_nvvm else ()), *(EXPLICIT if driver.explicit_libraries else ()))
    for pattern in wanted:
        found = driver.tree.find_real(tuple(filter(None, driver.library_dirs)) or ("/",), pattern)
        if not found:
            missing.append(pattern)
        yield from (driver.bind(path) for path in found)


def _each_container_path(mounts: Iterable[Mount]) -> Iterable[Mount]:
    first: dict[str, Mount] = {}
    for mount in mounts:
        first.setdefault(mount.container_path, mount)
    return first.values()


def _link(driver: Driver, mount: Mount, missing: list[str]) -> tuple[str, ...]:
    """The links of one library, as target::link: the forgotten one, and those that exist beside it on the host."""
    name, directory = basename(mount.container_path), parent(mount.container_path)
    forgotten = tuple(f"{target or name}::{join(directory, link)}" for pattern, target, link in FORGOTTEN_LINKS
                      if matches(name, pattern))
    if not matches(name, "*.*.*"):
        return forgotten
    try:
        soname = _read_soname(driver, mount.host_path)
    except ElfError as err:
        if driver.strict:
            raise CdiError("E_CDI_LIBRARY", f"{mount.host_path}: {err}") from err
        missing.append(f"SONAME of {mount.host_path}")
        return forgotten
    return (*forgotten, *_link_soname(driver, mount, name if soname is None else soname))


def _link_soname(driver: Driver, mount: Mount, soname: str) -> Iterator[str]:
    name, directory = basename(mount.container_path), parent(mount.container_path)
    if soname not in ("", name) and _is_link(driver, mount, soname):
        yield f"{name}::{join(directory, soname)}"
    target = soname or name
    bare = _strip_version(target)
    if bare not in ("", target) and _is_link(driver, mount, bare):
        yield f"{target}::{join(directory, bare)}"


def _is_link(driver: Driver, mount: Mount, name: str) -> bool:
    return driver.tree.kind(join(parent(mount.host_path), name)) is Kind.LINK


def _strip_version(name: str) -> str:
    """The name up to and with its last ".so"; empty when it has none."""
    while name and not name.endswith(".so"):
        name = name.rpartition(".")[0]
    return name


def _read_soname(driver: Driver, path: str) -> str | None:
    try:
        descriptor = driver.tree.host.open(path)
    except OSError as err:
        raise ElfError(f"it cannot be opened: {err.strerror}") from err
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ElfError("it is not a regular file")
        return read_soname(descriptor)
    finally:
        os.close(descriptor)


def _update_ldcache(driver: Driver, mounts: Iterable[Mount]) -> tuple[Hook, ...]:
    paths = (mount.container_path for mount in mounts)
    folders = tuple(dict.fromkeys(parent(path) for path in paths if _is_library_name(basename(path))))
    if not folders and not driver.release.bare_ldcache_hook:
        return ()
    ldconfig = ("--ldconfig-path", driver.hooks.ldconfig_path) if driver.hooks.ldconfig_path else ()
    return driver.hooks.write(UPDATE_LDCACHE, (*ldconfig, *repeat("--folder", folders)))


def _is_library_name(name: str) -> bool:
    stem, _, rest = name.rpartition(".so")
    return len(stem) > len("lib") and stem.startswith("lib") and (not rest or rest.startswith("."))
