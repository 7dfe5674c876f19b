# SPDX-License-Identifier: Apache-2.0
"""Where the report says that GPUs and NICs are, against what the guest's own sysfs had: every number, every pair, each
cell that `nvrc topology` prints, and what NCCL's file makes of it. Pure; no function of nvrc says what is right.

The stand-in agent tells sysfs (`rdma`, standins/agent_rdma.c): path, links, class, vendor and extended capabilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from xml.etree import ElementTree

from nvrc.report.board import name_devices
from nvrc.report.links import matrix
from nvrc.report.report import Report
from nvrc_lab.scenario.hardware import place_gpus
from nvrc_lab.scenario.values import Scenario
from nvrc_lab.watch.outcome import Told

FILE = "/var/run/nvidia-topologyd/virtualTopology.xml"
BDF = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
NVLINKS = re.compile("NV[1-9][0-9]*")
ACS, ATS = "d", "f"
TOPOLOGY, BOARDS = "nccl-topology.xml", "/etc/nvrc/topology/"


@dataclass(frozen=True, slots=True)
class Function:
    """`way`: from the root bus to the function itself; texts are the kernel's, empty where it has none."""

    bdf: str
    way: tuple[str, ...]
    numa: str
    link: tuple[str, str]
    most: tuple[str, str]
    code: str
    vendor: str
    capabilities: tuple[str, ...]

    @property
    def is_device(self) -> bool:
        """What has a place in the report, unless it manages switches."""
        return (self.code[:2], self.vendor) in (("03", "0x10de"), ("02", "0x15b3"))


def read_functions(told: Told) -> Mapping[str, Function]:
    rows = (line.removeprefix("function ").split("|") for line in told.agent if line.startswith("function "))
    return {row[0]: _function(*row) for row in rows}


def _function(bdf: str, path: str, numa: str, *rest: str) -> Function:
    speed, width, most, wide, code, vendor, capabilities = ("" if word == "-" else word for word in rest)
    return Function(bdf, tuple(path.partition("/devices/")[2].split("/")), numa, (speed, width), (most, wide), code,
                    vendor, tuple(capabilities.split(",")[1:]))


def check_places(scenario: Scenario, told: Told) -> Iterator[str]:
    found = read_functions(told)
    if not found or told.report is None or not told.report.places:
        return
    yield from _check_numbers(scenario, told, found)
    yield from _check_pairs(told, found)
    yield from _check_printed(told.report, found)
    if not any(path.startswith(BOARDS) for path in scenario.files) and not (
            scenario.machine.initdata and TOPOLOGY in scenario.machine.initdata.entries):
        yield from _check_file(told, found)


def _check_numbers(scenario: Scenario, told: Told, found: Mapping[str, Function]) -> Iterator[str]:
    assert told.report is not None
    managers = {one.bdf for one in told.report.topology if one.role.value == "management-nic"}
    due = {bdf for bdf, one in found.items() if one.is_device} - managers
    if due != (placed := {place.bdf for place in told.report.places}):
        yield f"places: sysfs has {sorted(due)}, the report {sorted(placed)}"
    links = {gpu.bdf: gpu.gpu.nvml.get("nvlinks") for gpu in place_gpus(scenario.machine)}
    for place in told.report.places:
        if (one := found.get(place.bdf)) is None:
            continue
        above = found.get(one.way[-2])
        rows = (("way", one.way, (place.root, *place.bridges, place.bdf)), ("NUMA node", one.numa, str(place.numa)),
                ("link", one.link, (place.speed, place.width)),
                ("most", one.most, (place.most_speed, place.most_width)),
                ("ACS above", above is not None and ACS in above.capabilities, place.acs),
                ("ATS", ATS in one.capabilities, place.ats),
                *([("NVLinks", links[place.bdf], str(place.nvlinks))] if links.get(place.bdf) else []))
        yield from (f"place {place.bdf}: {name}: the machine has {there}, the report {said}"
                    for name, there, said in rows if there != said)


def _check_pairs(told: Told, found: Mapping[str, Function]) -> Iterator[str]:
    assert told.report is not None
    gpus = [place.bdf for place in told.report.places if place.bdf in found and found[place.bdf].code[:2] == "03"]
    said = {frozenset((pair.one, pair.other)): pair.ancestor for pair in told.report.pairs}
    for one, other in combinations(gpus, 2):
        due, word = between(found[one], found[other]), said.get(frozenset((one, other)))
        if word is not None and word != due:
            yield f"pair {one} {other}: sysfs makes it {due}, the report says {word}"


def _check_printed(report: Report, found: Mapping[str, Function]) -> Iterator[str]:
    """All but the NVLinks, which sysfs does not have."""
    names = name_devices(report)
    named = {name: found[bdf] for bdf, name in names.items() if bdf in found}
    head, *rows = matrix(report.places, report.pairs, names)
    columns = head[1:1 + len(rows)]
    for row in rows:
        one = named.get(row[0])
        if one is None:
            continue
        cells = [_printed(one, named[name], cell) if name in named else cell
                 for name, cell in zip(columns, row[1:], strict=False)]
        due = (row[0], *cells, "N/A" if one.numa == "-1" else one.numa, one.way[1] if len(one.way) > 2 else one.way[0],
               *(f"{speed or '?'} x{width or '?'}" for speed, width in (one.link, one.most)))
        if row[:len(due)] != due:
            yield f"nvrc topology prints {' '.join(row)}, and by sysfs it is {' '.join(due)}"


def _printed(one: Function, other: Function, cell: str) -> str:
    return "X" if one.bdf == other.bdf else cell if NVLINKS.fullmatch(cell) else between(one, other)


def between(one: Function, other: Function) -> str:
    """By nvidia-smi's words: how many bridges the way up and down crosses."""
    if one.way[0] != other.way[0]:
        return "NODE" if one.numa == other.numa else "SYS"
    shared = next(depth for depth, (mine, theirs) in enumerate(zip(one.way, other.way, strict=False)) if mine != theirs)
    if shared == 1:
        return "PHB"
    return "PIX" if max(len(one.way), len(other.way)) - shared <= 2 else "PXB"


def _check_file(told: Told, found: Mapping[str, Function]) -> Iterator[str]:
    """As NCCL climbs sysfs: two folders at a time, up to what is not a PCI function, then the memory node."""
    head = f"text {FILE}: "
    text = "".join(line.removeprefix(head) for line in told.agent if line.startswith(head))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as err:
        yield f"{FILE}: {err}"
        return
    above = {child.get("busid", ""): parent.get("busid") or parent.get("numaid") or ""
             for parent in root.iter() for child in parent if child.tag == "pci"}
    missing = {place.bdf for place in told.report.places} - above.keys() if told.report else set[str]()
    yield from (f"{FILE}: {bdf} is missing" for bdf in sorted(missing))
    for bdf, parent in above.items():
        way = found[bdf].way if bdf in found else ()
        due = way[-3] if len(way) > 3 and BDF.fullmatch(way[-3]) else found[bdf].numa if way else "?"
        if parent != due:
            yield f"{FILE}: {bdf} is below {parent}, and by sysfs below {due}"
