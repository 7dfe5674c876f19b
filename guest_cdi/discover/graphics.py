# SPDX-License-Identifier: Apache-2.0
"""What graphics needs beyond the driver's libraries: EGL platforms, X.Org modules, and configuration of the loaders.

All of it is optional; a compute image has next to nothing of it.
"""

from __future__ import annotations

from guest_cdi.discover.driver import READ_ONLY, Driver, Found, basename, join, parent
from guest_cdi.discover.files import find_named_programs
from guest_cdi.discover.tree import Tree
from guest_cdi.lean.light import Iterator, NamedTuple
from guest_cdi.spec import ContainerEdits, Mount
from guest_cdi.versions import Release

# Versions of their own, hence the wildcard.
EGL = ("libnvidia-egl-gbm.so.*.*", "libnvidia-egl-wayland.so.*.*")
EGL_WAYLAND2 = "libnvidia-egl-wayland2.so.*.*"
EGL_XCB_XLIB = ("libnvidia-egl-xcb.so.*.*", "libnvidia-egl-xlib.so.*.*")
ALLOCATOR = "libnvidia-allocator.so"
VULKAN_PRODUCER = "libnvidia-vulkan-producer.so"
GLX_SERVER = "libglxserver_nvidia.so"
XORG_DRIVER = "nvidia_drv.so"

# Link that a graphics library needs: its target ("" is the file itself) and its path beside the library.
LINKS = {
    ALLOCATOR: ("../libnvidia-allocator.so.1", "gbm/nvidia-drm_gbm.so"),
    VULKAN_PRODUCER: ("", VULKAN_PRODUCER),
    GLX_SERVER: ("", GLX_SERVER),
}

XORG_MODULE_DIRS = ("modules/drivers", "modules/extensions", "modules/updates/drivers", "modules/updates/extensions")
XORG_ROOTS = ("/usr/lib/xorg", "/usr/lib64/xorg", "/usr/X11R6/lib", "/usr/X11R6/lib64")


class Config(NamedTuple):
    """A configuration file by its name below the search directories, and the directory it goes to in the container."""

    name: str
    container_dir: str = "/usr/share"


EGL_WAYLAND2_CONFIG = Config("egl/egl_external_platform.d/09_nvidia_wayland2.json")
EGL_XCB_XLIB_CONFIGS = (Config("egl/egl_external_platform.d/20_nvidia_xcb.json"),
                        Config("egl/egl_external_platform.d/20_nvidia_xlib.json"))
OPENCL_CONFIG = Config("OpenCL/vendors/nvidia.icd", "/etc")
CONFIGS = (
    Config("glvnd/egl_vendor.d/10_nvidia.json"),
    Config("egl/egl_external_platform.d/15_nvidia_gbm.json"),
    Config("egl/egl_external_platform.d/10_nvidia_wayland.json"),
    EGL_WAYLAND2_CONFIG,
    *EGL_XCB_XLIB_CONFIGS,
    Config("nvidia/nvoptix.bin"),
    Config("X11/xorg.conf.d/10-nvidia.conf"),
    Config("X11/xorg.conf.d/nvidia-drm-outputclass.conf"),
    OPENCL_CONFIG,
)
VULKAN_CONFIGS = (
    Config("vulkan/icd.d/nvidia_icd.json", "/etc"),
    Config("vulkan/icd.d/nvidia_layers.json", "/etc"),
    Config("vulkan/implicit_layer.d/nvidia_layers.json", "/etc"),
)
# Some packages name the ICD file after the architecture.
VULKAN_BY_MACHINE = {"x86_64": "vulkan/icd.d/nvidia_icd.x86_64.json", "aarch64": "vulkan/icd.d/nvidia_icd.aarch64.json"}


def find_graphics(driver: Driver) -> Found:
    parts = [_find_libraries(driver), _find_configs(driver), _find_vulkan(driver)]
    if driver.release.egl_xcb_xlib:
        parts.insert(1, find_named_programs(driver, ("nvidia-xconfig",)))
    mounts = tuple(mount for part in parts for mount in part.edits.mounts)
    return Found(edits=ContainerEdits(mounts=mounts, hooks=parts[0].edits.hooks),
                 missing=tuple(name for part in parts for name in part.missing))


def _find_libraries(driver: Driver) -> Found:
    missing: list[str] = []
    libraries = dict.fromkeys((*_locate_shared(driver, missing), *_locate_xorg(driver, missing)))
    mounts = tuple(driver.bind(path) for path in libraries)
    allocator = f"{ALLOCATOR}.{driver.version}"
    hooks = driver.hooks.link(link for mount in mounts for link in _link(driver, mount))
    # The allocator only lends its link: as a driver library it is mounted already.
    kept = tuple(mount for mount in mounts if basename(mount.container_path) != allocator)
    return Found(edits=ContainerEdits(mounts=kept, hooks=hooks), missing=tuple(missing))


def _locate_shared(driver: Driver, missing: list[str]) -> Iterator[str]:
    patterns = (*EGL, *((EGL_WAYLAND2,) if driver.release.egl_wayland2 else ()),
                *(EGL_XCB_XLIB if driver.release.egl_xcb_xlib else ()),
                f"{ALLOCATOR}.{driver.version}", f"{VULKAN_PRODUCER}.{driver.version}")
    for pattern in patterns:
        found = driver.tree.find_libraries(pattern)
        if not found:
            missing.append(pattern)
        yield from found


def _locate_xorg(driver: Driver, missing: list[str]) -> Iterator[str]:
    directories = tuple(_xorg_dirs(driver.library_dirs))
    for name in (XORG_DRIVER, f"{GLX_SERVER}.{driver.version}"):
        found = next(driver.tree.find(directories, name), None)
        if found is None:
            missing.append(name)
        else:
            yield found


def _xorg_dirs(library_dirs: tuple[str, ...]) -> Iterator[str]:
    for directory in library_dirs:
        if directory:
            yield f"{directory}/nvidia/xorg"
            yield from (f"{directory}/xorg/{modules}" for modules in XORG_MODULE_DIRS)
        yield from (f"{root}/{modules}" for root in XORG_ROOTS for modules in XORG_MODULE_DIRS)


def _link(driver: Driver, mount: Mount) -> Iterator[str]:
    name = basename(mount.container_path)
    library = name.removesuffix(f".{driver.version}")
    if library != name and library in LINKS:
        target, link = LINKS[library]
        yield f"{target or name}::{join(parent(mount.container_path), link)}"


def _config_tree(driver: Driver) -> Tree:
    return driver.config_tree or driver.tree


def _find_configs(driver: Driver) -> Found:
    configs = tuple(config for config in CONFIGS if _is_known(config, driver.release))
    if not driver.release.fixed_config_paths:
        return _find_configs_in_place(driver, configs)
    return _place_configs({config: next(_config_tree(driver).find(driver.config_dirs, config.name), None)
                           for config in configs})


def _is_known(config: Config, release: Release) -> bool:
    if config == EGL_WAYLAND2_CONFIG:
        return release.egl_wayland2
    if config in EGL_XCB_XLIB_CONFIGS:
        return release.egl_xcb_xlib
    return release.opencl or config != OPENCL_CONFIG


def _find_configs_in_place(driver: Driver, configs: tuple[Config, ...]) -> Found:
    """As older releases did it: every hit, mounted where it was found."""
    hits = {config.name: tuple(_config_tree(driver).find(driver.config_dirs, config.name)) for config in configs}
    paths = dict.fromkeys(path for found in hits.values() for path in found)
    return Found(edits=ContainerEdits(mounts=tuple(driver.bind(path) for path in paths)),
                 missing=tuple(name for name, found in hits.items() if not found))


def _find_vulkan(driver: Driver) -> Found:
    """Also searched at the driver root itself, where some clouds install it."""
    by_machine = VULKAN_BY_MACHINE.get(driver.machine)
    configs = (*VULKAN_CONFIGS, *((Config(by_machine, "/etc"),) if by_machine else ()))
    return _place_configs({config: next(_locate_vulkan(driver, config.name), None) for config in configs})


def _locate_vulkan(driver: Driver, name: str) -> Iterator[str]:
    yield from _config_tree(driver).find(driver.config_dirs, name)
    yield from driver.tree.find(("/",), name)


def _place_configs(paths: dict[Config, str | None]) -> Found:
    """Mounts at the fixed place of each file; one file found under two names is mounted once."""
    first = {path: config for config, path in reversed(paths.items()) if path}
    mounts = tuple(Mount(host_path=path, container_path=f"{config.container_dir}/{config.name}", options=READ_ONLY)
                   for config, path in paths.items() if path and first[path] == config)
    return Found(edits=ContainerEdits(mounts=mounts),
                 missing=tuple(config.name for config, path in paths.items() if not path))
