# SPDX-License-Identifier: Apache-2.0
"""A PCI bus in words, such as `H100*8,nvswitch*4`, to ask what a boot would make of it. Off the boot path.

Functions stand where the lab puts them. A product's switch and its ids come from the table of products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nvrc.hardware.topology import VPD_MARK
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.paths import PCI_DEVICES
from nvrc.vocabulary.products import PRODUCTS, SWITCHES

GPU_BUS, SWITCH_BUS, MANAGEMENT_BUS, NIC_BUS = 0x40, 0x50, 0x60, 0x70
NVSWITCH, MANAGEMENT_NIC, NIC, NOTHING = "nvswitch", "management-nic", "nic", "cpu"
MOST = 16  # of one kind: as many as fit between two buses above
Attributes = Mapping[str, bytes]


class ImaginedBus:
    """What a scan reads."""

    def __init__(self, functions: Mapping[str, Attributes]) -> None:
        self._functions = functions

    def list_dir(self, path: str) -> tuple[str, ...]:
        return tuple(self._functions) if path == PCI_DEVICES else ()

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        bdf, _, name = path.removeprefix(f"{PCI_DEVICES}/").partition("/")
        try:
            return self._functions[bdf][name][:limit]
        except KeyError as err:
            raise FileNotFoundError(2, "No such file or directory", path) from err


def imagine(text: str) -> ImaginedBus:
    """Every mistake of the text at once."""
    counts: dict[str, int] = {}
    mistakes: list[str] = []
    for item in text.split(","):
        name, star, count = (part.strip() for part in item.partition("*"))
        known = _known(name)
        number = _count(count) if star else 1
        if known is None:
            near = closest(name, (known.lower() for known in _names()))
            mistakes.append(f"{name!a} is not a product" + (f", did you mean {_known(near)}?" if near else
                            f"; known are {', '.join(_names())}"))
        elif number is None:
            mistakes.append(f"{item.strip()!a}: a count is a number from 1 to {MOST}")
        else:
            counts[known] = counts.get(known, 0) + number
    if sum(counts.get(name, 0) for name in PRODUCTS) > MOST or max(counts.values(), default=0) > MOST:
        mistakes.append(f"more than {MOST} of one kind")
    if mistakes:
        raise FormatError(tuple(f"machine {mistake}" for mistake in mistakes))
    return ImaginedBus(dict(sorted(_functions(counts))))


def _names() -> tuple[str, ...]:
    return (*PRODUCTS, NVSWITCH, MANAGEMENT_NIC, NIC, NOTHING)


def _known(name: str) -> str | None:
    return next((known for known in _names() if known.lower() == name.lower()), None)


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 3 and 0 < int(text) <= MOST else None


def _functions(counts: Mapping[str, int]) -> Iterator[tuple[str, Attributes]]:
    gpus = [name for name, count in counts.items() if name in PRODUCTS for _ in range(count)]
    for index, name in enumerate(gpus):
        product = PRODUCTS[name]
        yield f"0000:{GPU_BUS + index:02x}:00.0", _ids(0x10DE, product.device, product.pci_class)
    switch = SWITCHES.get(next(iter(gpus), ""), SWITCHES["H100"])
    yield from _row(SWITCH_BUS, counts.get(NVSWITCH, 0), _ids(0x10DE, switch, 0x068000))
    yield from _row(MANAGEMENT_BUS, counts.get(MANAGEMENT_NIC, 0), {**_ids(0x15B3, 0x1021, 0x020700), "vpd": VPD_MARK})
    yield from _row(NIC_BUS, counts.get(NIC, 0), {**_ids(0x15B3, 0x1021, 0x020000), "vpd": b"ConnectX-7"})


def _row(bus: int, count: int, attributes: Attributes) -> Iterator[tuple[str, Attributes]]:
    yield from ((f"0000:{bus:02x}:{index:02x}.0", attributes) for index in range(count))


def _ids(vendor: int, device: int, pci_class: int) -> dict[str, bytes]:
    return {"vendor": b"0x%04x\n" % vendor, "device": b"0x%04x\n" % device, "class": b"0x%06x\n" % pci_class}
