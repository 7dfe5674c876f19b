# SPDX-License-Identifier: Apache-2.0
"""Where GPUs and NICs are in the PCI tree: bridges above each, link, NUMA node, and what lies between two of them.

Read from sysfs and, for ACS and ATS, from the configuration space that it shows (Documentation/ABI/testing/
sysfs-bus-pci, PCI Express Base Specification 7.8.11 and 10.5.1). The ancestors of two devices are named as
`nvidia-smi topo -m` does.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping, NamedTuple
from nvrc.vocabulary import paths

if TYPE_CHECKING:
    from nvrc.machine.system import Files

ACS, ATS = 0x0D, 0x0F  # extended capabilities
_FIRST, _HEADER = 0x100, 4
_MOST_CAPABILITIES = 64
# From near to far, by nvidia-smi's names.
SELF, SINGLE, MULTIPLE, HOST, NODE, SYSTEM = "X", "PIX", "PXB", "PHB", "NODE", "SYS"


class Place(NamedTuple):
    """`bridges`: bus ids from the root port down. Text is the kernel's; `numa` is -1 where it names no node."""

    bdf: str
    root: str                   # the root bus, `pci0000:00`
    bridges: tuple[str, ...]
    numa: int
    speed: str
    width: str
    most_speed: str
    most_width: str
    has_acs: bool
    has_ats: bool


class Pair(NamedTuple):
    """Two GPUs: what lies between by sysfs, NVLinks that both have, and peer access in words, empty if not told."""

    one: str
    other: str
    ancestor: str
    nvlinks: int
    read: str
    write: str


class Places(NamedTuple):
    """GPUs and NICs, in this order; `source`: where the file for NCCL came from."""

    by_bdf: Mapping[str, Place]
    source: str


class Links(NamedTuple):
    """`nvlinks` by GPU: active ones, and how many this product has on a board with switches (0: not known)."""

    nvlinks: tuple[tuple[str, int, int], ...]
    pairs: tuple[Pair, ...]


def read_place(system: Files, bdf: str) -> Place:
    folder = f"{paths.PCI_DEVICES}/{bdf}"
    way = _way(system, folder)
    at = next((number for number, part in enumerate(way) if part.startswith("pci")), len(way))
    bridges = tuple(way[at + 1:-1])
    numa = _text(system, f"{folder}/numa_node")
    return Place(bdf, way[at] if at < len(way) else "", bridges, int(numa) if numa.isdigit() else -1,
                 _text(system, f"{folder}/current_link_speed"), _text(system, f"{folder}/current_link_width"),
                 _text(system, f"{folder}/max_link_speed"), _text(system, f"{folder}/max_link_width"),
                 has_acs=bool(bridges) and _has_capability(system, bridges[-1], ACS),
                 has_ats=_has_capability(system, bdf, ATS))


def _way(system: Files, folder: str) -> list[str]:
    """Where the kernel's list of the bus leads: `../../../devices/pci0000:00/0000:00:02.0/0000:41:00.0`."""
    try:
        return system.read_link(folder).split("/")
    except OSError:
        return []


def read_places(system: Files, functions: tuple[str, ...]) -> Mapping[str, Place]:
    """Of those that the bus has."""
    return {bdf: read_place(system, bdf) for bdf in functions if system.exists(f"{paths.PCI_DEVICES}/{bdf}")}


def ancestor(one: Place, other: Place) -> str:
    if one.bdf == other.bdf:
        return SELF
    if one.root != other.root:
        return NODE if one.numa == other.numa else SYSTEM
    shared = 0
    for mine, theirs in zip(one.bridges, other.bridges, strict=False):
        if mine != theirs:
            break
        shared += 1
    if not shared:
        return HOST
    return SINGLE if max(len(one.bridges), len(other.bridges)) - shared <= 1 else MULTIPLE


def _has_capability(system: Files, bdf: str, wanted: int) -> bool:
    """Whether an extended capability is in the chain; none is where the space is not shown whole.

    Headers alone are read, as the kernel asks the device for every four bytes, which in a VM may be an exit each.
    """
    seen: list[int] = []

    def follow(part: bytes) -> int:
        header = int.from_bytes(part, "little")
        if len(part) < _HEADER or header in (0, 0xFFFFFFFF):
            return 0
        seen.append(header & 0xFFFF)
        following = header >> 20
        return following if following >= _FIRST and seen[-1] != wanted and len(seen) < _MOST_CAPABILITIES else 0

    try:
        system.read_parts(f"{paths.PCI_DEVICES}/{bdf}/config", _FIRST, _HEADER, follow)
    except OSError:
        return False
    return wanted in seen


def _text(system: Files, path: str) -> str:
    """Empty where the kernel does not say, as for a device without a PCIe link."""
    try:
        return system.read(path, 64).decode("ascii", "replace").strip()
    except OSError:
        return ""
