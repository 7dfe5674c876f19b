# SPDX-License-Identifier: Apache-2.0
"""The paths between devices in the boot report, and as `nvrc topology` prints them: like nvidia-smi topo -m."""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, dataclass
from nvrc.hardware.links import Place, ancestor

if TYPE_CHECKING:
    from nvrc.engine.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRecord:
    """A device in the PCI tree; `required`: NVLinks that a GPU of this product has on its board, 0 if not known."""

    bdf: str
    root: str
    bridges: tuple[str, ...] = ()
    numa: int = -1
    speed: str = ""
    width: str = ""
    most_speed: str = ""
    most_width: str = ""
    acs: bool = False
    ats: bool = False
    nvlinks: int = 0
    required: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRecord:
    one: str
    other: str
    ancestor: str
    nvlinks: int = 0
    read: str = ""
    write: str = ""


def record_places(facts: Facts) -> tuple[PlaceRecord, ...]:
    places = facts.places.by_bdf.values() if facts.places else ()
    counts = {bdf: (active, required) for bdf, active, required in (facts.links.nvlinks if facts.links else ())}
    return tuple(PlaceRecord(
        bdf=one.bdf, root=one.root, bridges=one.bridges, numa=one.numa, speed=one.speed, width=one.width,
        most_speed=one.most_speed, most_width=one.most_width, acs=one.has_acs, ats=one.has_ats,
        nvlinks=counts.get(one.bdf, (0, 0))[0], required=counts.get(one.bdf, (0, 0))[1]) for one in places)


def record_pairs(facts: Facts) -> tuple[PairRecord, ...]:
    return tuple(PairRecord(one=pair.one, other=pair.other, ancestor=pair.ancestor, nvlinks=pair.nvlinks,
                            read=pair.read, write=pair.write) for pair in (facts.links.pairs if facts.links else ()))


def place_of(record: PlaceRecord) -> Place:
    return Place(record.bdf, record.root, record.bridges, record.numa, record.speed, record.width, record.most_speed,
                 record.most_width, has_acs=record.acs, has_ats=record.ats)


def matrix(places: tuple[PlaceRecord, ...], pairs: tuple[PairRecord, ...],
           names: dict[str, str]) -> list[tuple[str, ...]]:
    """Rows of cells: the head, then one for each device; a pair with NVLinks is `NV18`, like nvidia-smi has it."""
    linked = {frozenset((pair.one, pair.other)): pair.nvlinks for pair in pairs}
    head = ("", *(names[one.bdf] for one in places), "NUMA", "root port", "link", "most", "ACS", "ATS", "NVLinks")
    return [head, *((names[one.bdf], *(_cell(one, other, linked) for other in places), *_own(one)) for one in places)]


def _cell(one: PlaceRecord, other: PlaceRecord, linked: dict[frozenset[str], int]) -> str:
    count = linked.get(frozenset((one.bdf, other.bdf)), 0)
    return f"NV{count}" if count and one is not other else ancestor(place_of(one), place_of(other))


def _own(one: PlaceRecord) -> tuple[str, ...]:
    links = f"{one.nvlinks}" + (f" of {one.required}" if one.required and one.required != one.nvlinks else "")
    return (str(one.numa) if one.numa >= 0 else "N/A", one.bridges[0] if one.bridges else one.root,
            f"{one.speed or '?'} x{one.width or '?'}", f"{one.most_speed or '?'} x{one.most_width or '?'}",
            "yes" if one.acs else "no", "yes" if one.ats else "no", links)
