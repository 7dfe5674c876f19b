# SPDX-License-Identifier: Apache-2.0
"""The machine as NCCL reads it from /var/run/nvidia-topologyd/virtualTopology.xml, which it opens by itself.

NCCL (src/graph/xml.cc and topo.cc) takes elements `system`, `cpu` and `pci`, looks devices up by `busid`, and completes
what is missing from sysfs. An element `cpu` is a NUMA node, a `pci` of class 0x0604 a bridge, and what stands inside of
it hangs below it. What an image knows of the board that the host has is written with the places `gpu:0`, `nic:1` in
place of bus ids; they are filled in here in bus order. A file that contradicts the bus is refused as a whole.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping, Sequence
from nvrc.hardware.links import Place
from nvrc.hardware.topology import PciFunction
from nvrc.vocabulary.errors import NvrcError

BRIDGE = "0x060400"
VERSION = "1"
UNKNOWN, NO_WIDTH = "Unknown", ("0", "255")  # the kernel's words where there is no link
MOST_BYTES = 1 << 20
DEEPEST = 32
# Which attributes each element must have, and inside of what it may stand.
ELEMENTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "system": (("version",), ()),
    "cpu": (("numaid",), ("system",)),
    "pci": (("busid", "class"), ("cpu", "pci")),
    "gpu": (("dev",), ("pci",)),
    "nic": ((), ("pci", "cpu")),
    "net": ((), ("nic",)),
    "nvlink": (("target", "count", "tclass"), ("gpu",)),
}
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def write_topology(functions: Sequence[PciFunction], places: Mapping[str, Place]) -> bytes:
    """What this bus shows: a `cpu` for each NUMA node, bridges nested as they are, link speed and width of each."""
    lines = [f'<system version="{VERSION}">']
    for node in sorted({place.numa for place in places.values()}):
        lines.append(f'  <cpu numaid="{node}">')
        here = [one for one in functions if one.bdf in places and places[one.bdf].numa == node]
        lines += _write_level(here, places, 0, "    ")
        lines.append("  </cpu>")
    return "\n".join([*lines, "</system>", ""]).encode()


def _write_level(functions: Sequence[PciFunction], places: Mapping[str, Place], depth: int, pad: str) -> Iterator[str]:
    groups: dict[str, list[PciFunction]] = {}
    for one in functions:
        bridges = places[one.bdf].bridges
        groups.setdefault(bridges[depth] if depth < len(bridges) else "", []).append(one)
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
    words = [("busid", one.bdf), ("class", f"0x{one.pci_class:06x}"), ("vendor", f"0x{one.vendor:04x}"),
             ("device", f"0x{one.device:04x}"), ("link_speed", speed), ("link_width", width)]
    return f"{pad}<pci " + " ".join(f'{name}="{_escape(value)}"' for name, value in words if value) + "/>"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)


def fill_in(text: bytes, path: str, gpus: Sequence[str], nics: Sequence[str]) -> bytes:
    """A board's file with the bus ids of this guest in it, checked; E_TOPOLOGY_FILE with every mistake."""
    for kind, bdfs in (("gpu", gpus), ("nic", nics)):
        for number, bdf in enumerate(bdfs):
            text = text.replace(f'busid="{kind}:{number}"'.encode(), f'busid="{bdf}"'.encode())
    mistakes = check_topology(text, gpus, nics)
    if mistakes:
        raise NvrcError("E_TOPOLOGY_FILE", f"{path}: {'; '.join(mistakes[:6])}", path=path)
    return text


def check_topology(text: bytes, gpus: Sequence[str], nics: Sequence[str]) -> tuple[str, ...]:
    """What NCCL could not read, or would believe of another machine than this."""
    if len(text) > MOST_BYTES:
        return (f"is larger than {MOST_BYTES} bytes",)
    reading = _Reading()
    try:
        for name, attributes, is_empty in read_tags(text.decode("utf-8")):
            if name.startswith("/"):
                reading.end(name[1:])
                continue
            reading.begin(name, attributes)
            if is_empty:
                reading.end(name)
        reading.finish()
    except ValueError as err:
        return (f"is not read: {err}",)
    return (*reading.mistakes, *_compare(reading.devices, gpus, nics))


def read_tags(text: str) -> Iterator[tuple[str, Mapping[str, str], bool]]:
    """Name (with a slash where it closes), attributes, and whether it is empty; ValueError for what is no tag.

    Declarations, comments and text between tags are no part of the format but for a comment and an XML declaration,
    which NCCL skips. No entity is resolved: no name of this format has one.
    """
    rest = text.lstrip()
    while rest:
        if rest.startswith("<!--"):
            rest = _after(rest, "-->")
        elif rest.startswith("<?"):
            rest = _after(rest, "?>")
        elif rest.startswith("<") and not rest.startswith("<!"):
            body, end, rest = rest[1:].partition(">")
            if not end:
                raise ValueError(f"{'<' + body[:20]!a} has no end")
            yield _read_tag(body)
        else:
            raise ValueError(f"{rest[:20]!a} stands between tags")
        rest = rest.lstrip()


def _after(text: str, end: str) -> str:
    _, found, rest = text.partition(end)
    if not found:
        raise ValueError(f"{text[:20]!a} has no end")
    return rest


def _read_tag(body: str) -> tuple[str, Mapping[str, str], bool]:
    is_empty = body.endswith("/")
    name, _, rest = body.removesuffix("/").strip().partition(" ")
    attributes: dict[str, str] = {}
    rest = rest.strip()
    while rest:
        word, equals, rest = rest.partition('="')
        value, quote, rest = rest.partition('"')
        if not (equals and quote) or word.strip() in attributes or not word.strip().isidentifier():
            raise ValueError(f"<{name[:20]}>: {word[:20]!a} is not an attribute, or is given twice")
        attributes[word.strip()] = value
        rest = rest.strip()
    return name, attributes, is_empty


class _Reading:
    """One pass over a file, element by element."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self.devices: dict[str, int] = {}   # bus id to class, bridges left out
        self._open: list[str] = []
        self._began = False

    def begin(self, name: str, attributes: Mapping[str, str]) -> None:
        outside = self._open[-1] if self._open else ""
        self._open.append(name)
        self._began = True
        required, inside = ELEMENTS.get(name, ((), ()))
        if name not in ELEMENTS:
            self.mistakes.append(f"<{name[:20]}> is not an element that NCCL knows")
        elif outside not in inside and (outside or inside):
            self.mistakes.append(f"<{name}> stands inside of <{outside or 'nothing'}>")
        elif len(self._open) > DEEPEST:
            self.mistakes.append(f"<{name}> is nested deeper than {DEEPEST}")
        self.mistakes += [f"<{name}> has no {word}" for word in required if word not in attributes]
        if name == "system" and attributes.get("version") not in (None, VERSION):
            self.mistakes.append(f"version {attributes['version'][:8]} is not {VERSION}")
        if name == "pci":
            self._take(attributes.get("busid", ""), attributes.get("class", ""))

    def end(self, name: str) -> None:
        if not self._open or self._open.pop() != name:
            raise ValueError(f"</{name[:20]}> closes what is not open")

    def finish(self) -> None:
        if self._open or not self._began:
            raise ValueError(f"<{self._open[-1]}> is not closed" if self._open else "it has no element")

    def _take(self, bdf: str, pci_class: str) -> None:
        try:
            number = int(pci_class, 16)
        except ValueError:
            self.mistakes.append(f"{bdf[:20]}: class {pci_class[:12]!a} is not a number")
            return
        if number >> 8 == 0x0604:
            return
        if bdf in self.devices:
            self.mistakes.append(f"{bdf} is described twice")
        self.devices[bdf] = number


def _compare(devices: Mapping[str, int], gpus: Sequence[str], nics: Sequence[str]) -> Iterator[str]:
    """GPUs must all be there and nothing else; NICs may be left out, but none may be made up."""
    found = {kind: {bdf for bdf, number in devices.items() if number >> 16 == base}
             for kind, base in (("GPU", 0x03), ("NIC", 0x02))}
    yield from (f"GPU {bdf} of the bus is missing" for bdf in gpus if bdf not in found["GPU"])
    for kind, bdfs in (("GPU", gpus), ("NIC", nics)):
        yield from (f"{kind} {bdf[:20]} is not on the bus" for bdf in sorted(found[kind] - set(bdfs)))
