# SPDX-License-Identifier: Apache-2.0
"""The machine as NCCL reads it from /var/run/nvidia-topologyd/virtualTopology.xml, which it opens by itself.

NCCL (src/graph/xml.cc and topo.cc) takes elements `system`, `cpu` and `pci`, looks devices up by `busid`, and completes
what is missing from sysfs. An element `cpu` is a NUMA node, a `pci` of class 0x0604 a bridge, and what stands inside of
it hangs below it. A file that somebody gives is read by nccl_given.py.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping, Sequence
from nvrc.hardware.links import Place
from nvrc.hardware.topology import PciFunction

BRIDGE = "0x060400"
VERSION = "1"
UNKNOWN, NO_WIDTH = "Unknown", ("0", "255")  # the kernel's words where there is no link


def write_topology(functions: Sequence[PciFunction], places: Mapping[str, Place]) -> bytes:
    """What this bus shows: a `cpu` for each NUMA node, bridges nested as they are, link speed and width of each."""
    lines = [f'<system version="{VERSION}">']
    for node in sorted({place.numa for place in places.values()}):
        lines.append(f'  <cpu numaid="{node}">')
        here = [one for one in functions if one.bdf in places and places[one.bdf].numa == node]
        lines += _write_level(here, places, 0, "    ")
        lines.append("  </cpu>")
    return "\n".join([*lines, "</system>", ""]).encode()


def switches(place: Place) -> tuple[str, ...]:
    """The bridges that NCCL counts, from the root down: it climbs sysfs two at a time, from a device over the port
    above it to the switch's upstream port, and never counts a root port. Every port would be a switch more to it, and
    two devices of one switch as far apart as two switches."""
    return place.bridges[-2::-2][::-1]


def _write_level(functions: Sequence[PciFunction], places: Mapping[str, Place], depth: int, pad: str) -> Iterator[str]:
    groups: dict[str, list[PciFunction]] = {}
    for one in functions:
        above = switches(places[one.bdf])
        groups.setdefault(above[depth] if depth < len(above) else "", []).append(one)
    for bridge, below in sorted(groups.items()):
        if not bridge:
            yield from (_write_function(one, places[one.bdf], pad) for one in below)
            continue
        yield f'{pad}<pci busid="{bridge}" class="{BRIDGE}">'
        yield from _write_level(below, places, depth + 1, pad + "  ")
        yield f"{pad}</pci>"


def _write_function(one: PciFunction, place: Place, pad: str) -> str:
    # What a device without a link has there; NCCL then looks for itself, and takes its default.
    speed = "" if place.most_speed.startswith(UNKNOWN) else place.most_speed
    width = "" if place.most_width in NO_WIDTH else place.most_width
    words = {"busid": one.bdf, "class": f"0x{one.pci_class:06x}", "vendor": f"0x{one.vendor:04x}",
             "device": f"0x{one.device:04x}", "link_speed": speed, "link_width": width}
    return f"{pad}{write_tag('pci', {name: value for name, value in words.items() if value})}/>"


def write_tag(name: str, attributes: Mapping[str, str]) -> str:
    """Without its end. One blank before each attribute and nothing else: NCCL takes no other white space there."""
    return f"<{name}" + "".join(f' {key}="{value}"' for key, value in attributes.items())
