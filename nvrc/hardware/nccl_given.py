# SPDX-License-Identifier: Apache-2.0
"""A file for NCCL that the pod's initdata or the image gives: read, held against the bus, and written as NCCL takes it.

It may be one that NCCL wrote itself on the host (NCCL_TOPO_DUMP_FILE). What is in a host's file about GPUs and network
devices inside, NVLinks foremost, is left out: NCCL finds that out in the guest, and believes a file more than the
driver. What an image knows of the board is written with the places `gpu:0`, `nic:1` in place of bus ids, filled in here
in bus order. A file that contradicts the bus is refused as a whole, as is one that NCCL would stumble over: an error
there is one of the communicator, and no program on that machine could use NCCL.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping, Sequence
from nvrc.hardware.nccl import VERSION, write_tag
from nvrc.vocabulary.errors import NvrcError

MOST_BYTES = 1 << 20
MOST_ELEMENTS = 200     # NCCL has room for 256, and adds what it finds out about GPUs and NICs
MOST_ATTRIBUTES = 64    # of an element: NCCL keeps 16, and what is left of a tag is copied for each
LONGEST = 253           # of a value, to NCCL
DEEPEST = 32
BRIDGE_CLASS, GPU_BASE, NIC_BASE = 0x0604, 0x03, 0x02
# Inside of what an element may stand, what it must have, and what else of it reaches NCCL.
ELEMENTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "system": ((), ("version",), ()),
    "cpu": (("system",), ("numaid",), ("affinity", "arch", "vendor", "familyid", "modelid")),
    "pci": (("cpu", "pci"), ("busid", "class"), ("vendor", "device", "subsystem_vendor", "subsystem_device",
                                                 "link_speed", "link_width")),
    "pcilink": (("pci",), ("target",), ()),
}
LEFT_OUT = ("gpu", "nic")   # with all that is inside
# kvDictPciGen of topo.cc, which looks for a beginning; anything else would be 8 GT/s to it.
SPEEDS = ("2.5 GT/s", "5 GT/s", "8 GT/s", "16 GT/s", "32 GT/s", "5.0 GT/s PCIe", "8.0 GT/s PCIe", "16.0 GT/s PCIe",
          "32.0 GT/s PCIe", "64.0 GT/s PCIe")
_DIGITS = frozenset("0123456789abcdef")


def fill_in(text: bytes, path: str, gpus: Sequence[str], nics: Sequence[str], present: Mapping[str, int]) -> bytes:
    """The file for NCCL; E_TOPOLOGY_FILE with every mistake. `present`: the class of every function on the bus."""
    found, mistakes = read_given(text, gpus, nics, present)
    if mistakes:
        raise NvrcError("E_TOPOLOGY_FILE", f"{path}: {'; '.join(mistakes[:6])}", path=path)
    return found


def read_given(text: bytes, gpus: Sequence[str], nics: Sequence[str],
               present: Mapping[str, int]) -> tuple[bytes, tuple[str, ...]]:
    """The file for NCCL, and what NCCL could not read or would believe of another machine than this."""
    if len(text) > MOST_BYTES:
        return b"", (f"is larger than {MOST_BYTES} bytes",)
    names = {f"{kind}:{number}": bdf for kind, bdfs in (("gpu", gpus), ("nic", nics))
             for number, bdf in enumerate(bdfs)}
    reading = _Reading(names, present)
    try:
        for name, attributes, is_empty in read_tags(text.decode("utf-8")):
            if name.startswith("/"):
                reading.end(name[1:])
                continue
            reading.begin(name, attributes)
            if is_empty:
                reading.end(name)
            if len(reading.mistakes) > MOST_ELEMENTS:  # what follows makes it no worse
                return b"", tuple(reading.mistakes)
        reading.finish()
    except ValueError as err:
        return b"", (f"is not read: {err}",)
    return reading.text(), (*reading.mistakes, *_compare(reading.devices, gpus, nics))


def read_tags(text: str) -> Iterator[tuple[str, Mapping[str, str], bool]]:
    """Name (with a slash where it closes), attributes, and whether it is empty; ValueError for what is no tag.

    A comment and an XML declaration are skipped, which NCCL cannot do with every one; nothing else stands between tags.
    No entity is resolved: NCCL resolves none.
    """
    at = _next(text, 0)  # a place in the text and never the rest of it, which would be copied for each of many tags
    while at < len(text):
        if text.startswith("<!--", at):
            at = _after(text, at, "-->")
        elif text.startswith("<?", at):
            at = _after(text, at, "?>")
        elif text.startswith("<", at) and not text.startswith("<!", at):
            begin, at = at + 1, _after(text, at, ">")
            yield _read_tag(text[begin:at - 1])
        else:
            raise ValueError(f"{text[at:at + 20]!a} stands between tags")
        at = _next(text, at)


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _after(text: str, at: int, end: str) -> int:
    found = text.find(end, at)
    if found < 0:
        raise ValueError(f"{text[at:at + 20]!a} has no end")
    return found + len(end)


def _read_tag(body: str) -> tuple[str, Mapping[str, str], bool]:
    is_empty = body.endswith("/")
    name, *more = body.removesuffix("/").split(None, 1) or [""]
    rest, attributes = more[0].strip() if more else "", dict[str, str]()
    while rest:
        if len(attributes) == MOST_ATTRIBUTES:
            raise ValueError(f"<{_shown(name)}> has more than {MOST_ATTRIBUTES} attributes")
        word, equals, rest = rest.partition('="')
        value, quote, rest = rest.partition('"')
        if not (equals and quote) or word.strip() in attributes or not word.strip().isidentifier():
            raise ValueError(f"<{_shown(name)}>: {word[:20]!a} is not an attribute, or is given twice")
        attributes[word.strip()] = value
        rest = rest.strip()
    return name, attributes, is_empty


class _Reading:
    """One pass over a file, element by element. `devices`: bus id to class, bridges left out."""

    def __init__(self, names: Mapping[str, str], present: Mapping[str, int]) -> None:
        self.mistakes: list[str] = []
        self.devices: dict[str, int] = {}
        self._names, self._present = names, present
        self._lines: list[str] = []
        self._open: list[tuple[str, bool]] = []     # and whether a device may stand inside
        self._bridges: set[str] = set()
        self._nodes: set[str] = set()

    def begin(self, name: str, attributes: Mapping[str, str]) -> None:
        is_left_out = name in LEFT_OUT or any(outer in LEFT_OUT for outer, _ in self._open)
        outside, may_hold = self._open[-1] if self._open else ("", True)
        self._open.append((name, name != "pci"))
        if len(self._open) > DEEPEST:  # to the end of a file of such, each line would be longer than the one before
            raise ValueError(f"<{_shown(name)}> is nested deeper than {DEEPEST}")
        if is_left_out:
            return
        inside, required, optional = ELEMENTS.get(name, ((), (), ()))
        if name not in ELEMENTS:
            self.mistakes.append(f"<{_shown(name)}> is not an element that NCCL knows")
        elif outside not in inside and (outside or inside):
            self.mistakes.append(f"<{name}> stands inside of <{outside or 'nothing'}>")
        elif not outside and self._lines:
            self.mistakes.append(f"<{name}> is given twice")
        self.mistakes += [f"<{_shown(name)}> has no {word}" for word in required if word not in attributes]
        kept = {word: attributes[word] for word in (*required, *optional) if word in attributes}
        if name == "pci":
            kept["busid"] = self._names.get(kept.get("busid", ""), kept.get("busid", ""))
            self._take(kept, outside == "pci" and not may_hold)
        elif name == "cpu":
            self._take_node(kept.get("numaid", ""))
        elif name == "system" and kept.get("version") not in (None, VERSION):
            self.mistakes.append(f"version {_shown(kept['version'])} is not {VERSION}")
        self._check_values(kept)
        self._lines.append("  " * (len(self._open) - 1) + write_tag(name, kept) + ">")

    def end(self, name: str) -> None:
        if not self._open or self._open[-1][0] != name:
            raise ValueError(f"</{_shown(name)}> closes what is not open")
        is_left_out = any(outer in LEFT_OUT for outer, _ in self._open)
        self._open.pop()
        if is_left_out:
            return
        pad = "  " * len(self._open)
        if self._lines[-1].startswith(f"{pad}<{name}"):
            self._lines[-1] = f"{self._lines[-1][:-1]}/>"
        else:
            self._lines.append(f"{pad}</{name}>")

    def finish(self) -> None:
        if self._open or not self._lines:
            raise ValueError(f"<{_shown(self._open[-1][0])}> is not closed" if self._open else "it has no element")
        count = sum(1 for line in self._lines if not line.lstrip().startswith("</"))
        if count > MOST_ELEMENTS:
            self.mistakes.append(f"{count} elements are more than {MOST_ELEMENTS}")

    def text(self) -> bytes:
        return "\n".join([*self._lines, ""]).encode()

    def _take(self, kept: dict[str, str], is_inside_device: bool) -> None:
        bdf, number = kept["busid"], _class_of(kept.get("class", ""))
        if is_inside_device:
            self.mistakes.append(f"{_shown(bdf)} stands inside of what is not a bridge")
        if number is None:
            self.mistakes.append(f"{_shown(bdf)}: class {kept.get('class', '')[:12]!a} is not a number in hexadecimal")
            return
        kept["class"] = f"0x{number:06x}"
        if bdf in self.devices or _plain(bdf) in self._bridges:
            self.mistakes.append(f"{_shown(bdf)} is described twice")
        if number >> 8 != BRIDGE_CLASS:
            self.devices[bdf] = number
            return
        self._open[-1] = ("pci", True)
        self._bridges.add(_plain(bdf))
        if not set(_plain(bdf)) <= _DIGITS or not 0 < len(_plain(bdf)) <= 16:
            self.mistakes.append(f"busid {bdf[:20]!a} is not one of a bridge")
        elif self._present.get(bdf, BRIDGE_CLASS << 8) >> 8 != BRIDGE_CLASS:
            self.mistakes.append(f"{_shown(bdf)} is not a bridge on this bus")

    def _take_node(self, node: str) -> None:
        if node in self._nodes:
            self.mistakes.append(f"numaid {_shown(node)} is given twice")
        if not node.removeprefix("-").isdigit() or not node.isascii():
            self.mistakes.append(f"numaid {node[:8]!a} is not a number")
        self._nodes.add(node)

    def _check_values(self, kept: Mapping[str, str]) -> None:
        for word, value in kept.items():
            if len(value) > LONGEST or not (value.isascii() and value.isprintable()) or "<" in value or "&" in value:
                self.mistakes.append(f"{word} {value[:12]!a} is not plain text of {LONGEST} characters at most")
        speed, width = kept.get("link_speed", ""), kept.get("link_width", "")
        if speed and not speed.startswith(SPEEDS):
            self.mistakes.append(f"link_speed {speed[:16]!a} is not one that NCCL knows")
        if width and not (width.isascii() and width.isdigit()):
            self.mistakes.append(f"link_width {width[:8]!a} is not a number")


def _shown(text: str) -> str:
    """The beginning, in printable ASCII."""
    return ascii(text[:20])[1:-1]


def _class_of(text: str) -> int | None:
    """NCCL compares beginnings: 0x03 is any display."""
    digits = text.removeprefix("0x").lower()
    if digits == text or not 2 <= len(digits) <= 6 or not set(digits) <= _DIGITS:
        return None
    return int(digits.ljust(6, "0"), 16)


def _plain(bdf: str) -> str:
    """What NCCL knows a bridge by: its digits."""
    return bdf.lower().replace(":", "").replace(".", "")


def _compare(devices: Mapping[str, int], gpus: Sequence[str], nics: Sequence[str]) -> Iterator[str]:
    """GPUs must all be there and nothing else; NICs may be left out, but none may be made up."""
    found = {kind: {bdf for bdf, number in devices.items() if number >> 16 == base}
             for kind, base in (("GPU", GPU_BASE), ("NIC", NIC_BASE))}
    yield from (f"GPU {bdf} of the bus is missing" for bdf in gpus if bdf not in found["GPU"])
    for kind, bdfs in (("GPU", gpus), ("NIC", nics)):
        yield from (f"{kind} {_shown(bdf)} is not on the bus" for bdf in sorted(found[kind] - set(bdfs)))
