# SPDX-License-Identifier: Apache-2.0
"""Network functions of a machine that containers may have: what drives them, and their names, ports and GIDs.

Read from sysfs alone, by the paths of Documentation/ABI/stable/sysfs-class-infiniband and
Documentation/ABI/testing/sysfs-class-net; no device is opened. A function that has a fault is withheld from containers,
with a code of its own, and the GPUs are none of its business. Functions that manage NVLink switches never get here.
"""

from __future__ import annotations

import stat

from guest_cdi.lean.light import Iterator, NamedTuple, Sequence
from nvrc.hardware.topology import PciFunction
from nvrc.machine.system import Files, Node
from nvrc.vocabulary import paths
from nvrc.vocabulary.digits import is_number
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import Trouble, remark

DRIVER = "/sys/bus/pci/drivers/mlx5_core"
RDMA_DRIVER = "/sys/bus/auxiliary/drivers/mlx5_ib.rdma"
COMMUNICATION = "rdma_cm"
ATTRIBUTE_LIMIT = 256
MOST_GIDS = 32      # of a port: the table has hundreds of places, and those in use come first
NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
ETHERNET, INFINIBAND = 0x0200, 0x0207
# Virtual functions, by the table of mlx5_core: Connect-IB to ConnectX-6 by generation, all later ones, BlueField.
VIRTUAL = frozenset({0x1012, 0x1014, 0x1016, 0x1018, 0x101A, 0x101C, 0x101E, 0xA2D3})


class Gid(NamedTuple):
    place: int
    gid: str
    kind: str       # "IB/RoCE v1", "RoCE v2"; empty where the kernel does not say


class Port(NamedTuple):
    """A port of an RDMA device. `state` and `link_layer` are the kernel's words, empty where it has none."""

    number: int
    state: str
    link_layer: str
    gids: tuple[Gid, ...]


class Nic(NamedTuple):
    """One function. `node` is that of its verbs in /dev/infiniband; `fault`: why containers do not get it."""

    bdf: str
    function: PciFunction
    driver: str
    netdevs: tuple[str, ...] = ()
    rdma: str = ""
    verbs: str = ""
    node: Node | None = None
    ports: tuple[Port, ...] = ()
    fault: Trouble | None = None

    @property
    def is_virtual(self) -> bool:
        return self.function.device in VIRTUAL

    @property
    def kind(self) -> str:
        """`InfiniBand PF`, `RoCE VF`, `Ethernet PF`: what it is, for people."""
        is_roce = self.rdma and self.function.pci_class >> 8 == ETHERNET
        layer = "RoCE" if is_roce else "Ethernet" if self.function.pci_class >> 8 == ETHERNET else "InfiniBand"
        return f"{layer} {'VF' if self.is_virtual else 'PF'}"

    @property
    def is_given(self) -> bool:
        """Whether containers may open its verbs."""
        return self.fault is None and self.node is not None


def unsettled(system: Files, functions: Sequence[PciFunction]) -> tuple[str, ...]:
    """Functions whose driver is at work, with no RDMA device yet where a driver of those is loaded."""
    if not system.exists(RDMA_DRIVER):
        return ()
    return tuple(one.bdf for one in functions if _driver(system, one.bdf) == "mlx5_core"
                 and not _names(system, one.bdf, "infiniband_verbs"))


def read_nics(system: Files, functions: Sequence[PciFunction]) -> tuple[Nic, ...]:
    """Every function with what is known of it, and its first fault."""
    found = [_read(system, function) for function in functions]
    return tuple(nic._replace(fault=_fault(nic, found)) for nic in found)


def remarks(nics: Sequence[Nic]) -> Iterator[Trouble]:
    """What is worth knowing of functions that have no fault."""
    for nic in nics:
        if nic.fault is None and not nic.rdma:
            yield remark(f"NIC {nic.bdf} has no RDMA device; its network device is {_listed(nic.netdevs)}")


def read_nodes(system: Files, nics: Sequence[Nic]) -> tuple[tuple[str, Node], ...]:
    """All that a container may have of /dev/infiniband: the verbs of these functions, and how connections are made."""
    found = [(nic.verbs, nic.node) for nic in nics if nic.is_given and nic.node]
    common = find_communication(system) if found else None
    return (*found, *([(COMMUNICATION, common)] if common else []))


def find_communication(system: Files) -> Node | None:
    node = system.find_node(f"{paths.INFINIBAND_NODES}/{COMMUNICATION}")
    return node if node and stat.S_ISCHR(node.mode) else None


def _read(system: Files, function: PciFunction) -> Nic:
    bdf = function.bdf
    rdma, verbs = _names(system, bdf, "infiniband"), _names(system, bdf, "infiniband_verbs")
    nic = Nic(bdf, function, _driver(system, bdf), _names(system, bdf, "net"), rdma[0] if rdma else "",
              verbs[0] if verbs else "")
    ports = tuple(_port(system, nic, name) for name in _names(system, bdf, f"infiniband/{nic.rdma}/ports")
                  if is_number(name, 5)) if rdma else ()
    node = system.find_node(f"{paths.INFINIBAND_NODES}/{nic.verbs}") if verbs else None
    return nic._replace(ports=ports, node=node)


def _fault(nic: Nic, all_of_them: Sequence[Nic]) -> Trouble | None:
    if nic.function.vpd_error:
        return make_trouble("E_NIC_VPD", f"NIC {nic.function.vpd_error}", path=nic.bdf)
    if nic.driver != "mlx5_core":
        what = "has no driver" if not nic.driver else "is bound to another driver than mlx5_core"
        return make_trouble("E_NIC_DRIVER", f"NIC {nic.bdf} ({nic.function.identity}) {what}", path=nic.bdf)
    if twin := next((other for other in all_of_them if other is not nic and _shared(nic, other)), None):
        return make_trouble("E_NIC_NAME", f"NIC {nic.bdf} and {twin.bdf} are both called {_shared(nic, twin)}",
                            path=nic.bdf)
    if nic.verbs and (nic.node is None or not stat.S_ISCHR(nic.node.mode)):
        return make_trouble("E_NIC_NODE", f"NIC {nic.bdf}: {paths.INFINIBAND_NODES}/{nic.verbs} is not a device node",
                            path=nic.bdf)
    if nic.ports and not any(port.gids for port in nic.ports):
        return make_trouble("E_NIC_GID", f"NIC {nic.bdf} ({nic.rdma}) has no GID", path=nic.bdf)
    return None


def _shared(one: Nic, other: Nic) -> str:
    """A name that both have."""
    theirs = {*other.netdevs, other.rdma, other.verbs} - {""}
    return next((name for name in (one.rdma, one.verbs, *one.netdevs) if name in theirs), "")


def _driver(system: Files, bdf: str) -> str:
    if system.exists(f"{DRIVER}/{bdf}"):
        return "mlx5_core"
    return "other" if system.exists(f"{paths.PCI_DEVICES}/{bdf}/driver") else ""


def _port(system: Files, nic: Nic, name: str) -> Port:
    folder = f"infiniband/{nic.rdma}/ports/{name}"
    places = sorted(int(text) for text in _names(system, nic.bdf, f"{folder}/gids") if is_number(text, 5))
    gids = [Gid(place, gid, _text(system, nic.bdf, f"{folder}/gid_attrs/types/{place}"))
            for place in places[:MOST_GIDS]
            if (gid := _text(system, nic.bdf, f"{folder}/gids/{place}")) not in ("", NO_GID)]
    return Port(int(name), _text(system, nic.bdf, f"{folder}/state"), _text(system, nic.bdf, f"{folder}/link_layer"),
                tuple(gids))


def _names(system: Files, bdf: str, folder: str) -> tuple[str, ...]:
    try:
        return system.list_dir(f"{paths.PCI_DEVICES}/{bdf}/{folder}")
    except OSError:
        return ()  # the driver has made none


def _text(system: Files, bdf: str, name: str) -> str:
    """An attribute; empty for a place of the GID table that is not in use, which reads as an error."""
    try:
        return system.read(f"{paths.PCI_DEVICES}/{bdf}/{name}", ATTRIBUTE_LIMIT).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "missing as well"
