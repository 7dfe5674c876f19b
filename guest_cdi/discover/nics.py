# SPDX-License-Identifier: Apache-2.0
"""Network functions of NVIDIA's as CDI documents: kind `nic`, and kind `ib` for those with RDMA.

Kata's runtime-rs counts the functions of vendor 15b3 and class 020x that it passes, in the order of their guest PCI
paths compared as text, and asks for `nvidia.com/nic=N`. So every such function has its number here. One that manages
NVLink switches, or has no verbs, has an entry that gives nothing: a number without one would stop the container.
`umad*` and `issm*` are in no document: they reach the subnet itself.
"""

from __future__ import annotations

import stat

from guest_cdi.host import Host, read_file
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Iterable, NamedTuple, Sequence
from guest_cdi.naming import ALL, is_device_name
from guest_cdi.spec import ContainerEdits, Device, DeviceNode, Spec

DEVICES = "/sys/bus/pci/devices"
NODES = "/dev/infiniband"
COMMUNICATION = f"{NODES}/rdma_cm"
NIC, IB = "nic", "ib"
VENDOR, CLASSES = "0x15b3", ("0x0200", "0x0207")
MARK = b"SW_MNG"
VPD_LIMIT = 64 << 10
# A device without edits would be invalid.
NOTHING = ContainerEdits(env=("NVCT_EMPTY_DEVICE=",))


class NetworkFunction(NamedTuple):
    """`verbs`: its node, None where a container gets none; `rdma`: the name of its RDMA device."""

    bdf: str
    rdma: str = ""
    verbs: DeviceNode | None = None


def describe_nics(host: Host, functions: Iterable[NetworkFunction], communication: DeviceNode | None,
                  vendor: str = "nvidia.com") -> tuple[Spec, ...]:
    """The document of each kind that has a device. `functions`: every one of the vendor and class, in any order."""
    ordered = sorted(functions, key=lambda function: (guest_path(host, function.bdf), function.bdf))
    common = (communication,) if communication else ()
    given = [(function.rdma, ContainerEdits(device_nodes=(function.verbs, *common)))
             for function in ordered if function.verbs]
    everything = ContainerEdits(device_nodes=tuple(dict.fromkeys(
        node for _, edits in given for node in edits.device_nodes)))
    by_number = [(str(number), ContainerEdits(device_nodes=(function.verbs, *common)) if function.verbs else NOTHING)
                 for number, function in enumerate(ordered)]
    nics = _spec(f"{vendor}/{NIC}", [*by_number, (ALL, everything if given else NOTHING)] if ordered else [])
    named = [(name, edits) for number, (rdma, edits) in enumerate(given) for name in (str(number), *_own_name(rdma))]
    rdma = _spec(f"{vendor}/{IB}", [*named, (ALL, everything)] if given else [])
    return (*nics, *rdma)


def _own_name(rdma: str) -> tuple[str, ...]:
    """Whoever administers the network may rename an RDMA device, also to another's number."""
    return (rdma,) if is_device_name(rdma) and not rdma.isdigit() and rdma != ALL else ()


def find_functions(host: Host) -> tuple[NetworkFunction, ...]:
    """All of the vendor and class that are on the bus; without verbs where they manage switches, or may do so."""
    try:
        bus = sorted(host.scan(DEVICES))
    except OSError as err:
        raise CdiError("E_CDI_READ", f"{DEVICES}: {err.strerror}") from err
    return tuple(_find(host, bdf) for bdf in bus if _is_nic(host, bdf))


def find_communication(host: Host) -> DeviceNode | None:
    return find_node(host, COMMUNICATION)


def find_node(host: Host, path: str) -> DeviceNode | None:
    """A character device, with its numbers; a link is not followed."""
    try:
        info = host.lstat(path)
    except OSError:
        return None
    return make_node(path, info.major, info.minor) if stat.S_ISCHR(info.mode) else None


def make_node(path: str, major: int, minor: int) -> DeviceNode:
    return DeviceNode(path=path, type="c", major=major, minor=minor, permissions="rw")


def guest_path(host: Host, bdf: str) -> str:
    """`02/00`: the slots from the root bus down, with functions other than 0, as Kata writes a guest PCI path."""
    try:
        way = host.resolve(f"{DEVICES}/{bdf}")
    except OSError as err:
        raise CdiError("E_CDI_READ", f"{DEVICES}/{bdf}: {err.strerror}") from err
    places = [part.rpartition(":")[2] for part in way.split("/") if part.count(":") == 2 and "." in part]
    return "/".join(place.removesuffix(".0") for place in places)


def _spec(kind: str, rows: Sequence[tuple[str, ContainerEdits]]) -> tuple[Spec, ...]:
    devices = tuple(Device(name=name, container_edits=edits) for name, edits in sorted(rows, key=lambda row: row[0]))
    return (Spec(kind=kind, devices=devices),) if devices else ()


def _is_nic(host: Host, bdf: str) -> bool:
    return (_text(host, f"{DEVICES}/{bdf}/vendor") == VENDOR
            and _text(host, f"{DEVICES}/{bdf}/class").startswith(CLASSES))


def _find(host: Host, bdf: str) -> NetworkFunction:
    rdma, verbs = (_first(host, f"{DEVICES}/{bdf}/{folder}") for folder in ("infiniband", "infiniband_verbs"))
    node = find_node(host, f"{NODES}/{verbs}") if verbs and not _may_manage(host, bdf) else None
    return NetworkFunction(bdf, rdma, node)


def _may_manage(host: Host, bdf: str) -> bool:
    """Whether the VPD says that it manages NVLink switches, or does not answer: then nobody knows."""
    try:
        vpd = read_file(host, f"{DEVICES}/{bdf}/vpd", VPD_LIMIT)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not vpd or MARK in vpd


def _first(host: Host, folder: str) -> str:
    try:
        return min(host.scan(folder), default="")
    except OSError:
        return ""  # the driver has made none


def _text(host: Host, path: str) -> str:
    try:
        return read_file(host, path, 64).decode("ascii", "replace").strip()
    except OSError as err:
        raise CdiError("E_CDI_READ", f"{path}: {err.strerror}") from err
