# SPDX-License-Identifier: Apache-2.0
"""Where the functions of GPUs and NICs are on the bus of a scenario's machine, and the bridges above each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nvrc_lab.scenario.values import Hardware, Link, Nic, Tree

GPU_BUS, NIC_BUS = 0x40, 0x70
# With bridges: a domain of its own, in it a root bus for each memory node.
BRIDGE_BUS, NODE_BUSES = 0x10, 0x40
BRIDGE = "8086:3420/060400"
SWITCH = "1000:c030/060400"
PHYSICAL, VIRTUAL = 0x1021, 0x101E  # ConnectX-7; any virtual function since ConnectX-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place for one function. `bridges`: rows for lab_pci.ko, from the root down; `numa`: None where nothing says."""

    bdf: str
    bridges: tuple[str, ...] = ()
    numa: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedNic:
    index: int
    site: Site
    nic: Nic

    @property
    def bdf(self) -> str:
        return self.site.bdf

    @property
    def row(self) -> str:
        """For lab_pci.ko. A virtual function has no VPD of its own."""
        device, code = (VIRTUAL if self.nic.virtual else PHYSICAL), 0x0200 if self.nic.link is Link.ROCE else 0x0207
        numa = f"/numa={self.site.numa}" if self.site.numa is not None else ""
        vpd = "" if self.nic.virtual else "/vpd=ConnectX-7"
        link = "".join(f"/{key}={value}" for key, value in link_keys(self.nic.pcie).items())
        return f"{self.bdf}/15b3:{device:04x}/{code:04x}00{vpd}/guid=b83fd20300b1{self.index:04x}/ats=1{link}{numa}"

    @property
    def words(self) -> str:
        link = "RoCE" if self.nic.link is Link.ROCE else "InfiniBand"
        return f"ConnectX {'VF' if self.nic.virtual else 'PF'}, {link}"


def sites(machine: Hardware) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
    """For every GPU and every NIC, in their own order."""
    gpus, nics = sum(gpu.count for gpu in machine.gpus), sum(nic.count for nic in machine.nics)
    if machine.tree in (Tree.SWITCHES, Tree.NESTED):
        pairs = max(gpus, nics)
        pair = _pair if machine.tree is Tree.SWITCHES else _nested_pair
        rows = [pair(index, pairs, machine.numa) for index in range(pairs)]
        return tuple(gpu for gpu, _ in rows[:gpus]), tuple(nic for _, nic in rows[:nics])
    if machine.tree is Tree.PORTS:
        ports = [_port(index) for index in range(gpus + nics)]
        return tuple(ports[:gpus]), tuple(ports[gpus:])
    return (tuple(Site(bdf=f"0000:{GPU_BUS + index:02x}:00.0") for index in range(gpus)),
            tuple(Site(bdf=f"0000:{NIC_BUS:02x}:{index:02x}.0") for index in range(nics)))


def _port(index: int) -> Site:
    bus = BRIDGE_BUS + 1 + index
    return Site(bdf=f"0001:{bus:02x}:00.0", bridges=(_bridge(BRIDGE_BUS, index, "root", (bus, bus)),))


def _pair(index: int, pairs: int, nodes: int) -> tuple[Site, Site]:
    """A root port, a switch below it, and of its two downstream ports one for the GPU and one for the NIC."""
    node = index * nodes // pairs
    first = next(other for other in range(pairs) if other * nodes // pairs == node)
    root, numa = BRIDGE_BUS + NODE_BUSES * node, (node if nodes > 1 else None)
    bus = root + 1 + 4 * (index - first)
    above = (_bridge(root, index - first, "root", (bus, bus + 3), numa),
             _bridge(bus, 0, "up", (bus + 1, bus + 3), numa))
    gpu = (*above, _bridge(bus + 1, 0, "down", (bus + 2, bus + 2), numa))
    nic = (*above, _bridge(bus + 1, 1, "down", (bus + 3, bus + 3), numa))
    return (Site(bdf=f"0001:{bus + 2:02x}:00.0", bridges=gpu, numa=numa),
            Site(bdf=f"0001:{bus + 3:02x}:00.0", bridges=nic, numa=numa))


def _nested_pair(index: int, pairs: int, nodes: int) -> tuple[Site, Site]:
    """A switch of its own, whose first port leads to the NIC, behind one that it shares with a neighbour."""
    node = index * nodes // pairs
    number = index - next(other for other in range(pairs) if other * nodes // pairs == node)
    root, numa = BRIDGE_BUS + NODE_BUSES * node, (node if nodes > 1 else None)
    outer = root + 1 + 10 * (number // 2)
    bus = outer + 2 + 4 * (number % 2)
    above = (_bridge(root, number // 2, "root", (outer, outer + 9), numa),
             _bridge(outer, 0, "up", (outer + 1, outer + 9), numa),
             _bridge(outer + 1, number % 2, "down", (bus, bus + 3), numa),
             _bridge(bus, 0, "up", (bus + 1, bus + 3), numa))
    nic, gpu = ((*above, _bridge(bus + 1, slot, "down", (bus + 2 + slot, bus + 2 + slot), numa)) for slot in (0, 1))
    return (Site(bdf=f"0001:{bus + 3:02x}:00.0", bridges=gpu, numa=numa),
            Site(bdf=f"0001:{bus + 2:02x}:00.0", bridges=nic, numa=numa))


def link_keys(pcie: str) -> Mapping[str, str]:
    """What a link can have and has, for lab_pci.ko."""
    now, _, most = pcie.partition("/")
    return {"link": most or now, **({"now": now} if most else {})} if pcie else {}


def _bridge(bus: int, slot: int, port: str, below: tuple[int, int], numa: int | None = None) -> str:
    """`below`: the first and the last bus behind it. An upstream port has no ACS."""
    identity, first, last = (BRIDGE if port == "root" else SWITCH), *below
    keys = f"bus={first:02x}-{last:02x}/port={port}/acs={int(port != 'up')}"
    return f"0001:{bus:02x}:{slot:02x}.0/{identity}/{keys}" + (f"/numa={numa}" if numa is not None else "")


def place_nics(machine: Hardware) -> tuple[PlacedNic, ...]:
    """As the scenario lists them; one with a place of its own leaves that of the tree empty."""
    single = [nic for nic in machine.nics for _ in range(nic.count)]
    found = zip(single, sites(machine)[1], strict=True)
    return tuple(PlacedNic(index=index, nic=nic, site=_at(nic.at, nic.numa, site))
                 for index, (nic, site) in enumerate(found))


def _at(place: str, numa: int | None, site: Site) -> Site:
    if place:
        return Site(bdf=place, numa=numa)
    return Site(bdf=site.bdf, bridges=site.bridges, numa=site.numa if numa is None else numa)


def with_bridges(rows: Mapping[str, str], found: Mapping[str, Site]) -> Iterator[str]:
    """Rows by bus id, each behind the bridges above it, which come once."""
    seen: set[str] = set()
    for bdf, row in rows.items():
        for bridge in found[bdf].bridges if bdf in found else ():
            if bridge not in seen:
                seen.add(bridge)
                yield bridge
        yield row
