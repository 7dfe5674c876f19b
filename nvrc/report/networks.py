# SPDX-License-Identifier: Apache-2.0
"""Networks in the boot report: NICs with names, ports and GIDs, and the GPUs' registrations with the NVLink fabric."""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, dataclass

if TYPE_CHECKING:
    from nvrc.engine.facts import Facts
    from nvrc.hardware.nics import Port

SHOWN_GIDS = 2  # on a terminal, of each port


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRecord:
    number: int
    state: str = ""
    link_layer: str = ""
    gids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NicRecord:
    """`kind`: `RoCE VF` and the like; `code`: why containers do not get it."""

    bdf: str
    kind: str
    driver: str = ""
    netdevs: tuple[str, ...] = ()
    rdma: str = ""
    verbs: str = ""
    ports: tuple[PortRecord, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricRecord:
    """A GPU that has a fabric; `state` and `status` in words."""

    gpu: str
    state: str
    status: str
    clique: int
    cluster: str = ""


def record_fabric(facts: Facts) -> tuple[FabricRecord, ...]:
    return tuple(FabricRecord(gpu=one.gpu, state=one.state, status=one.status, clique=one.clique, cluster=one.cluster)
                 for one in facts.fabric or ())


def record_nics(facts: Facts) -> tuple[NicRecord, ...]:
    return tuple(NicRecord(bdf=nic.bdf, kind=nic.kind, driver=nic.driver, netdevs=nic.netdevs, rdma=nic.rdma,
                           verbs=nic.verbs, ports=tuple(map(_port, nic.ports)),
                           code=nic.fault.code if nic.fault else "")
                 for nic in facts.nics or ())


def nic_row(nic: NicRecord) -> tuple[str, ...]:
    """Columns for a terminal."""
    ports = "; ".join(f"port {port.number} {port.state or 'state unknown'}, {port.link_layer}, {_gids(port.gids)}"
                      for port in nic.ports)
    return nic.bdf, nic.kind, nic.rdma or "no RDMA", " ".join(nic.netdevs), nic.code, ports


def _gids(gids: tuple[str, ...]) -> str:
    if not gids:
        return "no GID"
    more = f" and {len(gids) - SHOWN_GIDS} more" if len(gids) > SHOWN_GIDS else ""
    return f"GID {', '.join(gids[:SHOWN_GIDS])}{more}"


def _port(port: Port) -> PortRecord:
    """A GID as `INDEX GID TYPE`."""
    return PortRecord(number=port.number, state=port.state, link_layer=port.link_layer,
                      gids=tuple(f"{one.place} {one.gid} {one.kind}".rstrip() for one in port.gids))
