# SPDX-License-Identifier: Apache-2.0
"""Documents of other kinds than GPUs, for `guest-cdi generate --mode`. None of them opens NVML.

Modes, device names, nodes and mounts are those of nvidia-ctk (pkg/nvcdi: gated.go, lib-imex.go, management.go), with
two more of our own, `nic` and `ib`. Where nvidia-ctk writes a document without any device, there is an error here.
"""

from __future__ import annotations

from guest_cdi.discover.driver import Driver, Found, find_version
from guest_cdi.discover.files import find_firmware, find_programs, find_sockets
from guest_cdi.discover.hooks import DISABLE_NODE_MODIFICATION, ENABLE_CUDA_COMPAT
from guest_cdi.discover.libraries import find_libraries
from guest_cdi.discover.nics import IB, NIC, describe_nics, find_communication, find_functions
from guest_cdi.discover.nodes import find_matching_nodes, open_folders
from guest_cdi.generate import COMMON_ENV, Options, make_driver
from guest_cdi.host import Host, Kind
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Callable, Mapping, NamedTuple, Sequence, replace
from guest_cdi.merge import concatenate, merge_devices, tidy
from guest_cdi.naming import ALL, is_number
from guest_cdi.spec import ContainerEdits, Device, DeviceNode, Spec

IMEX, MANAGEMENT = "imex", "management"
IMEX_CHANNELS = "/dev/nvidia-caps-imex-channels/channel"
MOST_CHANNELS = 1 << 20  # they are minor numbers
MANAGED = ("/dev/nvidia*", "/dev/nvidia-caps/nvidia-cap*", "/dev/nvidia-caps-imex-channels/channel*")
UNMANAGED = ("/dev/nvidia-fs", "/dev/nvidia-nvswitch", "/dev/nvidia-nvlink")
COMMON = ContainerEdits(env=COMMON_ENV)


class Gated(NamedTuple):
    """Nodes that make one device, and files beside them where there is such a node."""

    nodes: tuple[str, ...]
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


GATED: Mapping[str, Gated] = {
    "gdrcopy": Gated(("/dev/gdrdrv",)),
    "gds": Gated(("/dev/nvidia-fs*",), ("/run/udev",), ("/etc/cufile.json",)),
    "mofed": Gated(("/dev/infiniband/uverbs*", "/dev/infiniband/rdma_cm")),
    "nvswitch": Gated(("/dev/nvidia-nvswitchctl", "/dev/nvidia-nvswitch*")),
}
Describe = Callable[[Host, str, Options], Spec]


def _describe_networks(host: Host, mode: str, options: Options) -> Spec:
    made = describe_nics(host, find_functions(host), find_communication(host), options.vendor)
    found = next((spec for spec in made if spec.kind == f"{options.vendor}/{mode}"), None)
    return found or _refuse(mode)


def _describe_gated(host: Host, mode: str, options: Options) -> Spec:
    driver, rule = make_driver(host, options), GATED[mode]
    nodes = find_matching_nodes(driver, rule.nodes).edits
    if not nodes.device_nodes:
        return _refuse(mode)
    places = [(name, Kind.DIRECTORY) for name in rule.folders] + [(name, Kind.FILE) for name in rule.files]
    mounts = tuple(driver.bind(path) for path, kind in ((driver.tree.place(name), kind) for name, kind in places)
                   if driver.tree.kind(path) is kind)
    return _make(options, [(ALL, tidy(concatenate([nodes, ContainerEdits(mounts=mounts)])))])


def _describe_imex(host: Host, mode: str, options: Options) -> Spec:
    driver = make_driver(host, options)
    rows = [(number, _channel(driver, number)) for number in _channels(driver, options.device_ids)]
    if not rows:
        return _refuse(mode)
    spec = _make(options, rows)
    if not options.all_device:
        return spec
    devices = (*spec.devices, Device(name=ALL, container_edits=merge_devices(spec.devices, COMMON)))
    return replace(spec, devices=tuple(sorted(devices, key=lambda device: device.name)))


def _channels(driver: Driver, ids: Sequence[str]) -> tuple[str, ...]:
    """Numbers as they are given, with `channel` before them or without; `all` among them: every one there is."""
    if ALL in ids:
        nodes = find_matching_nodes(driver, (f"{IMEX_CHANNELS}*",)).edits.device_nodes
        return tuple(node.path.removeprefix(IMEX_CHANNELS) for node in nodes)
    numbers = tuple(word.removeprefix("channel") for word in ids)
    if bad := [word for word in numbers if not (is_number(word) and int(word) < MOST_CHANNELS)]:
        what = f"--device-id {bad[0][:40]}: an IMEX channel is a number below {MOST_CHANNELS}, or all"
        raise CdiError("E_CDI_USAGE", what)
    return tuple(dict.fromkeys(numbers))


def _channel(driver: Driver, number: str) -> ContainerEdits:
    edits = find_matching_nodes(driver, (f"{IMEX_CHANNELS}{number}",)).edits
    if not edits.device_nodes:
        raise CdiError("E_CDI_NO_DEVICE", f"{IMEX_CHANNELS}{number} is not a character device")
    if driver.strict:
        return edits
    bare = (DeviceNode(path=node.path, host_path=node.host_path or node.path) for node in edits.device_nodes)
    return ContainerEdits(device_nodes=tuple(bare))  # as the reference has them


def _describe_management(host: Host, mode: str, options: Options) -> Spec:
    """All nodes of the driver but those of storage and fabric, and its files; for tools that look after GPUs."""
    # Tools that look after GPUs make nodes: they go without the hook that tells libraries not to.
    without = {DISABLE_NODE_MODIFICATION, *([] if options.release.management_compat else [ENABLE_CUDA_COMPAT])}
    options = replace(options, disabled_hooks=options.disabled_hooks | without)
    driver = make_driver(host, options, find_version(make_driver(host, options).tree))
    found = find_matching_nodes(driver, MANAGED)
    nodes = tuple(node for node in found.edits.device_nodes if not node.path.startswith(UNMANAGED))
    if not nodes:
        return _refuse(mode)
    edits = open_folders(driver, Found(edits=replace(found.edits, device_nodes=nodes))).edits
    files = concatenate(find(driver).edits for find in (find_libraries, find_sockets, find_firmware, find_programs))
    common = tidy(replace(files, env=(*files.env, *COMMON_ENV)))
    common = replace(common, hooks=driver.hooks.combine(common.hooks))
    return _make(options, [(ALL, tidy(edits, common))], common)


MODES: Mapping[str, tuple[Describe, str]] = {
    NIC: (_describe_networks, "network functions by number, as Kata asks for them"),
    IB: (_describe_networks, "those with RDMA"),
    "gdrcopy": (_describe_gated, "the node of gdrcopy"),
    "gds": (_describe_gated, "GPUDirect Storage"),
    IMEX: (_describe_imex, "IMEX channels by number"),
    MANAGEMENT: (_describe_management, "every node of the driver, for tools that look after GPUs"),
    "mofed": (_describe_gated, "every RDMA node but those of the subnet"),
    "nvswitch": (_describe_gated, "NVSwitches"),
}


def describe_mode(host: Host, mode: str, options: Options) -> Spec:
    """The document of one kind; CdiError where the machine has nothing of it."""
    describe, _ = MODES[mode]
    return describe(host, mode, options)


def default_kind(mode: str, *, is_strict: bool) -> tuple[str, str]:
    """Vendor and class where none is given: nvidia-ctk's library has one for each mode, its command one for all."""
    if not is_strict or mode not in MODES:
        return "nvidia.com", "gpu"
    return ("management.nvidia.com", "gpu") if mode == MANAGEMENT else (
        "nvidia.com", "imex-channel" if mode == IMEX else mode)


def _make(options: Options, rows: Sequence[tuple[str, ContainerEdits]], common: ContainerEdits = COMMON) -> Spec:
    devices = tuple(Device(name=name, container_edits=edits) for name, edits in sorted(rows, key=lambda row: row[0]))
    return Spec(kind=f"{options.vendor}/{options.kind_class}", devices=devices, container_edits=common)


def _refuse(mode: str) -> Spec:
    raise CdiError("E_CDI_NO_DEVICE", f"this machine has no device for --mode {mode}")
