# SPDX-License-Identifier: Apache-2.0
"""Device nodes: the control nodes of the driver, a GPU's own node with its DRM nodes, a MIG device's capabilities."""

from __future__ import annotations

import stat

from guest_cdi.discover.driver import Driver, Found, parent
from guest_cdi.discover.hooks import CHMOD, repeat
from guest_cdi.discover.tree import Tree, clean, matches
from guest_cdi.gpu import Gpu, Mig
from guest_cdi.host import Host, read_file
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import TYPE_CHECKING, Iterable, Mapping, replace
from guest_cdi.naming import is_number
from guest_cdi.spec import ContainerEdits, DeviceNode, Hook

if TYPE_CHECKING:
    from guest_cdi.lean.errors import CdiCode

CONTROL_NODES = ("/dev/nvidia-modeset", "/dev/nvidia-uvm-tools", "/dev/nvidia-uvm", "/dev/nvidiactl")
MIG_MINORS = "/proc/driver/nvidia-caps/mig-minors"
# Directories of nodes that an old crun created without search permission.
NESTED_NODE_DIRS = ("/dev/dri", "/dev/nvidia-caps")
WORLD_ACCESS = 0o006


def find_control_nodes(driver: Driver) -> Found:
    return _find_nodes(driver, CONTROL_NODES)


def find_gpu(driver: Driver, gpu: Gpu) -> Found:
    """A whole GPU: its node, its DRM nodes, and the links by PCI path that lead to those."""
    path, drm = f"/dev/nvidia{gpu.minor}", list_drm_nodes(driver.tree.host, gpu.bus_id)
    found = _find_nodes(driver, (path, *drm))
    links = _link_by_path(driver, gpu, found.edits) if drm else ()
    found = _with_hooks(found, (*links, *_chmod_directories(driver, found.edits)))
    _require(driver, found, path, "E_CDI_GPU_NODE", f"GPU {gpu.index} ({gpu.uuid})")
    return found


def find_matching_nodes(driver: Driver, patterns: Iterable[str]) -> Found:
    """Every node that one of these paths stands for; the name, not the folder, may be a pattern."""
    paths: dict[str, None] = {}
    for pattern in patterns:
        folder = parent(pattern)
        try:
            names = driver.tree.host.scan(clean(f"{driver.dev_root}/{folder}"))
        except OSError:
            continue
        here = (f"{folder}/{name}" for name in sorted(names))
        paths |= dict.fromkeys(path for path in here if matches(path, pattern))
    found = _find_nodes(driver, paths)
    return replace(found, missing=())


def open_folders(driver: Driver, found: Found) -> Found:
    """With the hook for folders of nodes that an old crun made without search permission."""
    return _with_hooks(found, _chmod_directories(driver, found.edits))


def find_mig(driver: Driver, gpu: Gpu, mig: Mig, minors: Mapping[str, int]) -> Found:
    """A MIG device: its GPU's node and its two capabilities; DRM nodes only with a graphics profile."""
    owner = f"MIG device {gpu.index}:{mig.index} ({mig.uuid})"
    path = f"/dev/nvidia{gpu.minor}"
    capabilities = tuple(_capability_node(minors, name, owner) for name in (
        f"gpu{gpu.minor}/gi{mig.gi}/access", f"gpu{gpu.minor}/gi{mig.gi}/ci{mig.ci}/access"))
    drm = list_drm_nodes(driver.tree.host, gpu.bus_id) if mig.gfx else ()
    found = _find_nodes(driver, (path, *capabilities, *drm))
    _require(driver, found, path, "E_CDI_GPU_NODE", owner)
    for capability in capabilities:
        _require(driver, found, capability, "E_CDI_MIG_CAPABILITY", owner)
    return _with_hooks(found, _link_by_path(driver, gpu, found.edits) if mig.gfx else ())


def read_mig_minors(host: Host) -> dict[str, int]:
    """Minor number of each capability. Lines of another shape are skipped: the driver may add some."""
    try:
        text = read_file(host, MIG_MINORS).decode(errors="replace")
    except OSError:
        return {}
    pairs = (line.split(" ") for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and is_number(pair[1])}


def normalise_bus_id(bus_id: str) -> str:
    """The PCI address as sysfs spells it: NVML writes a domain of eight digits where the kernel writes four."""
    address = bus_id.lower()
    domain, _, rest = address.partition(":")
    return f"{domain[4:]}:{rest}" if len(domain) == 8 and domain.startswith("0000") else address


def _capability_node(minors: Mapping[str, int], name: str, owner: str) -> str:
    if name not in minors:
        raise CdiError("E_CDI_MIG_CAPABILITY", f"{owner}: {MIG_MINORS} has no entry {name}",
                       "check that the nvidia module knows this MIG device: nvidia-smi -L must list it")
    return f"/dev/nvidia-caps/nvidia-cap{minors[name]}"


def _require(driver: Driver, found: Found, path: str, code: CdiCode, owner: str) -> None:
    """A device without this node would be useless. The reference drops it and says so in a warning."""
    if path in found.missing and (driver.strict or found.edits.is_empty()):
        raise CdiError(code, f"{owner} has no character device {clean(driver.dev_root + path)}")


def _find_nodes(driver: Driver, paths: Iterable[str]) -> Found:
    nodes: list[DeviceNode] = []
    missing: list[str] = []
    for path in paths:
        hits = [_describe(driver, host_path) for host_path in _places(driver, path)]
        nodes += (node for node in hits if node is not None)
        if not any(hits):
            missing.append(path)
    gids = dict.fromkeys(node.gid for node in nodes if driver.node_gids and _is_group_only(node))
    edits = ContainerEdits(device_nodes=tuple(nodes), additional_gids=tuple(gid for gid in gids if gid))
    return Found(edits=edits, missing=tuple(missing))


def _places(driver: Driver, path: str) -> tuple[str, str]:
    """A node may be named by its path or by its name below /dev."""
    return clean(f"{driver.dev_root}/{path}"), clean(f"{driver.dev_root}/dev/{path}")


def _describe(driver: Driver, host_path: str) -> DeviceNode | None:
    """The node, if it is a character device itself: a link is not followed, it could lead to any node."""
    try:
        info = driver.tree.host.lstat(host_path)
    except OSError:
        return None
    if not stat.S_ISCHR(info.mode):
        return None
    root = clean(driver.dev_root).rstrip("/")
    path = host_path[len(root):]
    outside = host_path if root else ""
    if not driver.release.node_details:
        return DeviceNode(path=path, host_path=outside)
    return DeviceNode(path=path, host_path=outside, major=info.major, minor=info.minor,
                      file_mode=stat.S_IMODE(info.mode) or None, permissions="rwm", gid=info.gid or None)


def _is_group_only(node: DeviceNode) -> bool:
    mode = node.file_mode
    return node.gid is not None and mode is not None and mode & WORLD_ACCESS != WORLD_ACCESS


def _with_hooks(found: Found, hooks: tuple[Hook, ...]) -> Found:
    return replace(found, edits=replace(found.edits, hooks=hooks)) if hooks else found


def _chmod_directories(driver: Driver, edits: ContainerEdits) -> tuple[Hook, ...]:
    directories = dict.fromkeys(parent(node.path) for node in edits.device_nodes)
    nested = [directory for directory in directories if directory in NESTED_NODE_DIRS]
    if driver.strict and not nested:
        return ()
    return driver.hooks.write(CHMOD, ("--mode", "755", *repeat("--path", nested)))


def list_drm_nodes(host: Host, bus_id: str) -> tuple[str, ...]:
    folder = f"/sys/bus/pci/devices/{normalise_bus_id(bus_id)}/drm"
    try:
        host.lstat(folder)  # few GPUs of a guest have one, and a walk along the links takes a call for each part
        names = host.scan(folder)
    except OSError:
        return ()
    return tuple(f"/dev/dri/{name}" for name in sorted(names))


def _link_by_path(driver: Driver, gpu: Gpu, edits: ContainerEdits) -> tuple[Hook, ...]:
    tree = Tree(driver.tree.host, driver.dev_root, strict=driver.strict)
    nodes = {node.host_path or node.path for node in edits.device_nodes}
    links = []
    for kind in ("card", "render"):
        link = tree.place(f"/dev/dri/by-path/pci-{normalise_bus_id(gpu.bus_id)}-{kind}")
        try:
            target = tree.host.read_link(link)
        except OSError:
            continue
        if clean(target if target.startswith("/") else f"{parent(link)}/{target}") in nodes:
            links.append(f"{target}::{link}")
    return driver.hooks.link(links)
