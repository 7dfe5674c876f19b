# SPDX-License-Identifier: Apache-2.0
"""A virtual PCI function outside the guest: configuration space, VPD, identity registers and the mailbox, as bytes.

Reads the same descriptions as lab_pci.ko (lab_machine.c, lab_keys.c) and lays out the same capabilities at the same
places (lab_config.c, lab_mailbox.h), so that one scenario and one emulated driver serve both. Knows no protocol.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from nvrc_lab.ground.errors import LabError

CONFIG_SIZE, PLAIN_SIZE, BARS = 4096, 256, 6
PM, MSI, EXPRESS, VPD, MAILBOX = 0x40, 0x50, 0x70, 0xB0, 0x100
_ORDER: Mapping[int, int] = {PM: 0x01, EXPRESS: 0x10, MSI: 0x05, VPD: 0x03}
FLR, DEVCTL, VPD_DONE = 1 << 15, EXPRESS + 8, 1 << 15
STATE, RESETS, FAULTS_AT, MINOR_NEXT = 0x10, 0x30, 0x0C, 0xFFFF_FFFF
_NUMBERS: Mapping[str, int] = {"attach_ms": 0x08, "state": STATE, "cc": 0x14, "minor": 0x18, "status": 0x1C,
                               "port_mask": 0xB0, "port_state": 0xB4}
_FAULTS: Mapping[str, int] = {"attach": 1, "hang": 2, "probe": 4, "sticky": 8, "nvlink": 16}
_TEXTS: Mapping[str, tuple[int, int]] = {"model": (0x40, 64), "vbios": (0x80, 32)}
_BYTES: Mapping[str, tuple[int, int]] = {"uuid": (0x20, 16), "guid": (0xB8, 8)}
_PLACE = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])/([0-9a-f]{4}):([0-9a-f]{4})/([0-9a-f]{6})")
_KEYS = frozenset({*_NUMBERS, *_TEXTS, *_BYTES, "faults", "mig", "vpd", "vpd-error", "flr", "boot0", "boot42", "bars",
                   "sub", "rev", "irq"})
MIB = 1 << 20
_UNITS: Mapping[str, int] = {"K": 1 << 10, "M": MIB, "G": 1 << 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One function in words. `keys` as in lab_keys.c, decoded."""

    bdf: str
    bus: int
    slot: int
    function: int
    vendor: int
    device: int
    pci_class: int
    keys: Mapping[str, str]

    @property
    def is_gpu(self) -> bool:
        return self.vendor == 0x10DE and self.pci_class >> 16 == 3


def parse_functions(text: str) -> tuple[Description, ...]:
    return tuple(parse_function(word) for word in text.split(",") if word)


def parse_function(text: str) -> Description:
    head = _PLACE.match(text)
    if head is None:
        raise LabError(f"{text!r} is no PCI function", "write DDDD:BB:SS.F/VENDOR:DEVICE/CLASS[/KEY=VALUE...]")
    domain, bus, slot, function, vendor, device, pci_class = (int(word, 16) for word in head.groups())
    bdf = text.partition("/")[0]
    if domain:
        raise LabError(f"{bdf} is in PCI domain {domain}; a machine on route b has one", "take --route a")
    keys = dict(word.partition("=")[::2] for word in text[head.end():].split("/") if word)
    unknown = sorted(set(keys) - _KEYS)
    if unknown:
        raise LabError(f"{bdf}: route b knows no {', '.join(unknown)}", "take --route a")
    return Description(bdf=bdf, bus=bus, slot=slot, function=function, vendor=vendor, device=device,
                       pci_class=pci_class, keys={key: unquote(value) for key, value in keys.items()})


class VirtualFunction:
    """Invariant: only bits of `_mask` change by writes; off the bus every read is ones and every write is lost."""

    def __init__(self, description: Description) -> None:
        self._described = description
        self._config, self._mask = bytearray(CONFIG_SIZE), bytearray(CONFIG_SIZE)
        keys = description.keys
        self.bar_sizes = tuple(_bar_sizes(description))
        self.registers = {0x0: int(keys.get("boot0", "180000a1"), 16),
                          0xA00: int(keys.get("boot42", "180a1000"), 16)} if description.is_gpu else {}
        self._vpd = make_vpd(keys["vpd"]) if "vpd" in keys else b""
        self.is_off_bus = False
        self._identify(description)
        self._add_bars()
        self._add_capabilities(has_flr=keys.get("flr") != "0")
        self._add_mailbox(description)
        self._fresh = bytes(self._config)

    def read(self, at: int, size: int) -> bytes:
        return b"\xff" * size if self.is_off_bus else bytes(self._config[at:at + size])

    def write(self, at: int, data: bytes) -> None:
        if self.is_off_bus:
            return
        for offset, byte in enumerate(data, at):
            mask = self._mask[offset]
            self._config[offset] = self._config[offset] & ~mask | byte & mask
        if self._vpd and at <= VPD + 3 and at + len(data) > VPD + 3:
            self._answer_vpd()
        if at <= DEVCTL + 1 < at + len(data) and data[DEVCTL + 1 - at] << 8 & FLR and self._has_flr():
            self.reset()

    def read_bar(self, bar: int, at: int, size: int) -> bytes:
        if self.is_off_bus:
            return b"\xff" * size
        if bar != 0:
            return bytes(size)
        first = at & ~3
        words = b"".join(struct.pack("<I", self.registers.get(where, 0)) for where in range(first, at + size, 4))
        return words[at - first:at - first + size]

    def write_bar(self, bar: int, at: int, data: bytes) -> None:
        """Registers keep what is written, but those that identify the chip."""
        if bar == 0 and len(data) == 4 and at % 4 == 0 and at not in (0x0, 0xA00) and not self.is_off_bus:
            self.registers[at] = int.from_bytes(data, "little")

    def reset(self) -> None:
        """A function-level reset: plain configuration space and the state; the mailbox's description stays."""
        self._config[:PLAIN_SIZE] = self._fresh[:PLAIN_SIZE]
        self._put(MAILBOX + RESETS, "<I", self._get(MAILBOX + RESETS) + 1)
        if not self._get(MAILBOX + FAULTS_AT) & _FAULTS["sticky"]:
            self._put(MAILBOX + STATE, "<I", 0)

    def power_on(self) -> None:
        self._config[:] = self._fresh

    def _has_flr(self) -> bool:
        return bool(self._get(EXPRESS + 4) & 1 << 28)

    def _answer_vpd(self) -> None:
        address = self._get(VPD + 2) & 0xFFFF
        if address & VPD_DONE or self._described.keys.get("vpd-error") == "1":
            return
        self._config[VPD + 4:VPD + 8] = self._vpd[address:address + 4].ljust(4, b"\0")
        self._put(VPD + 2, "<H", address | VPD_DONE)

    def _get(self, at: int) -> int:
        return int.from_bytes(self._config[at:at + 4], "little")

    def _put(self, at: int, form: str, *values: int) -> None:
        struct.pack_into(form, self._config, at, *values)

    def _allow(self, at: int, form: str, *masks: int) -> None:
        struct.pack_into(form, self._mask, at, *masks)

    def _identify(self, row: Description) -> None:
        self._put(0, "<HHHH", row.vendor, row.device, 0, 0x10)
        self._put(8, "<I", row.pci_class << 8 | int(row.keys.get("rev", "a1"), 16))
        vendor, device = row.vendor, 0x16C1 if row.is_gpu else row.device
        if "sub" in row.keys:
            vendor, device = (int(word, 16) for word in row.keys["sub"].split(":"))
        self._put(0x2C, "<HH", vendor, device)
        # NVIDIA's driver refuses a function without interrupt.
        self._put(0x3C, "<BB", int(row.keys.get("irq", "11")), 1)
        self._allow(4, "<H", 0x0547)
        self._allow(0x3C, "<B", 0xFF)

    def _add_bars(self) -> None:
        for bar in range(0, BARS, 2):
            size = self.bar_sizes[bar]
            if size:
                self._put(0x10 + 4 * bar, "<I", 0xC)
                self._allow(0x10 + 4 * bar, "<Q", -size & 0xFFFF_FFFF_FFFF_FFF0)

    def _add_capabilities(self, *, has_flr: bool) -> None:
        last = 0x34
        for at, kind in _ORDER.items():
            if at != VPD or self._vpd:
                self._put(last, "<B", at)
                self._put(at, "<BB", kind, 0)
                last = at + 1
        self._put(PM + 2, "<HH", 3, 8)
        self._allow(PM + 4, "<H", 3)
        self._put(EXPRESS + 2, "<HIHHIHH", 0x0002, 0x8001 | (1 << 28 if has_flr else 0), 0x2810, 0, 0x0040_0105, 0,
                  0x1105)
        self._allow(DEVCTL, "<H", 0x7FFF)
        self._allow(EXPRESS + 0x10, "<H", 0x0FFF)
        self._put(MSI + 2, "<H", 0x0080)
        self._allow(MSI + 2, "<HIIH", 0x0071, 0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF)
        if self._vpd:
            self._allow(VPD + 2, "<HI", 0xFFFF, 0xFFFF_FFFF)

    def _add_mailbox(self, row: Description) -> None:
        self._put(MAILBOX, "<II", 0x0001_000B, 0x4C42 | 1 << 16 | 0xC0 << 20)
        infiniband = row.pci_class >> 8 == 0x0207
        numbers = {"minor": MINOR_NEXT, "port_mask": 0xA651_E848 * infiniband, "port_state": 4 * infiniband}
        numbers |= {key: int(value, 0) for key, value in row.keys.items() if key in _NUMBERS}
        for key, number in numbers.items():
            self._put(MAILBOX + _NUMBERS[key], "<I", number)
        words = row.keys.get("faults", "")
        self._put(MAILBOX + FAULTS_AT, "<I", sum(_FAULTS[word] for word in words.split("+") if word))
        for key, (at, size) in _TEXTS.items():
            text = row.keys.get(key, "").encode()
            if len(text) >= size:
                raise LabError(f"{row.bdf}: {key} has {len(text)} bytes, {size - 1} fit", "shorten it")
            self._config[MAILBOX + at:MAILBOX + at + len(text)] = text
        for key, (at, size) in _BYTES.items():
            self._config[MAILBOX + at:MAILBOX + at + size] = bytes.fromhex(row.keys.get(key, "00" * size))
        for word in filter(None, row.keys.get("mig", "").split("+")):
            instance, compute = (int(number) for number in word.split("."))
            self._config[MAILBOX + 0xA0 + instance] |= 1 << compute
        self._allow(MAILBOX + STATE, "<I", 0xFFFF_FFFF)


def _bar_sizes(row: Description) -> Iterator[int]:
    """64-bit BARs 0, 2 and 4; the odd ones are their upper halves."""
    default = "16M+256M+32M" if row.is_gpu else "1M"
    words = row.keys.get("bars", default).split("+")
    for bar in range(BARS):
        word = words[bar // 2] if bar % 2 == 0 and bar // 2 < len(words) else "0"
        yield int(word.rstrip("KMG")) * _UNITS.get(word[-1], 1)


def make_vpd(text: str) -> bytes:
    """Identifier string, then part number, serial number and checksum field, as lab_keys.c makes them."""
    name = text.encode()
    fields = b"".join((b"PN", bytes([len(name)]), name, b"SN\x040001", b"RV\x01\0"))
    return b"".join((b"\x82", struct.pack("<H", len(name)), name, b"\x90", struct.pack("<H", len(fields)), fields,
                     b"\x78"))
