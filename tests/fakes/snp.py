# SPDX-License-Identifier: Apache-2.0
"""The SEV-SNP launch digest from the specifications alone, to hold the factory's against. Shares no code with it.

AMD SEV-SNP Firmware ABI (56860) 8.17: PAGE_INFO, and the digest as a chain of SHA-384 over it. AMD APM volume 2 (24593)
appendix B, table B-4: offsets of the save area. QEMU target/i386/sev.c: order of pages, table of kernel hashes, reset
state of a processor. OVMF OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm: sections.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PAGE = 4096
NORMAL, VMSA, ZERO, SECRETS, CPUID = 1, 2, 3, 5, 6
# The firmware records save areas at the highest page of a 48-bit address.
VMSA_ADDRESS = 0xFFFFFFFFF000
RESET_VECTOR = 0xFFFFFFF0

# Types of metadata sections, and the type of page that each becomes. Kernel hashes (0x10) depend on whether there are any.
MEMORY, SECRET, CPUID_TABLE, CALLING_AREA, HASHES = 1, 2, 3, 4, 0x10
PAGES: Mapping[int, int] = {MEMORY: ZERO, SECRET: SECRETS, CPUID_TABLE: CPUID, CALLING_AREA: ZERO}

TABLE, CMDLINE, INITRD, KERNEL = (uuid.UUID(text).bytes_le for text in (
    "9438d606-4f22-4cc9-b479-a793d411fd21", "97d02dd8-bd20-4c94-aa78-e7714d36ab2a",
    "44baf731-3a2f-4bd7-9af1-41e29169781d", "4de79437-abd2-427f-b835-d5b172d2045b"))

# CPUID function 1, EAX, of QEMU's models: family, model and stepping as AMD's revision guides print them.
SIGNATURES: Mapping[str, int] = {
    "EPYC": 0x800F12, "EPYC-IBPB": 0x800F12, "EPYC-Rome": 0x830F10, "EPYC-Milan": 0xA00F11, "EPYC-Genoa": 0xA10F10,
    "EPYC-Turin": 0xB00F00,
}


@dataclass(frozen=True, slots=True)
class Section:
    address: int
    size: int
    kind: int


@dataclass(frozen=True, slots=True)
class Firmware:
    """What the firmware file tells about itself, by numbers: nothing is parsed here."""

    sections: Sequence[Section]
    hashes_at: int
    processors_start_at: int


@dataclass(frozen=True, slots=True)
class Started:
    """What QEMU hashes into the table: contents, not files."""

    kernel: bytes
    initrd: bytes
    cmdline: str


def extend(digest: bytes, kind: int, address: int, contents: bytes) -> bytes:
    return hashlib.sha384(digest + contents + struct.pack("<HBBBBBBQ", 0x70, kind, 0, 0, 0, 0, 0, address)).digest()


def firmware_digest(image: bytes) -> bytes:
    """Of the firmware's pages, which end at 4 GiB."""
    digest = bytes(48)
    for at in range(0, len(image), PAGE):
        digest = extend(digest, NORMAL, (1 << 32) - len(image) + at, hashlib.sha384(image[at:at + PAGE]).digest())
    return digest


def launch_digest(digest: bytes, firmware: Firmware, started: Started | None, *, cpus: int, signature: int) -> bytes:
    """From the digest of the firmware's pages on: sections in their order, then a save area for each processor."""
    for section in firmware.sections:
        for address in range(section.address, section.address + section.size, PAGE):
            kind, contents = PAGES.get(section.kind, ZERO), bytes(48)
            if section.kind == HASHES and started is not None:
                kind, contents = NORMAL, hashlib.sha384(hashes_page(firmware.hashes_at % PAGE, started)).digest()
            digest = extend(digest, kind, address, contents)
    for starts_at in (RESET_VECTOR, *[firmware.processors_start_at] * (cpus - 1)):
        digest = extend(digest, VMSA, VMSA_ADDRESS, hashlib.sha384(save_area(starts_at, signature)).digest())
    return digest


def hashes_page(offset: int, started: Started) -> bytes:
    rows = ((CMDLINE, started.cmdline.encode() + b"\0"), (INITRD, started.initrd), (KERNEL, started.kernel))
    entries = b"".join(guid + struct.pack("<H", 50) + hashlib.sha256(data).digest() for guid, data in rows)
    return (bytes(offset) + TABLE + struct.pack("<H", 18 + len(entries)) + entries).ljust(PAGE, b"\0")


def save_area(starts_at: int, signature: int) -> bytes:
    """A processor as it leaves reset: real mode, at `starts_at`; RDX tells its model."""
    page = bytearray(PAGE)
    for at, selector, attributes, base in _segments(starts_at):
        struct.pack_into("<HHIQ", page, at, selector, attributes, 0xFFFF, base)
    for at, value in {
        0x0D0: 0x1000,               # EFER: secure virtual machine enable
        0x148: 0x40,                 # CR4: machine check enable
        0x158: 0x10,                 # CR0: extension type
        0x160: 0x400, 0x168: 0xFFFF0FF0,  # DR7, DR6
        0x170: 0x2,                  # RFLAGS: the bit that is always set
        0x178: starts_at & 0xFFFF,   # RIP
        0x268: 0x0007040600070406,   # PAT
        0x310: signature,            # RDX
        0x3B0: 0x1,                  # SEV features: SNP active
        0x3E8: 0x1,                  # XCR0: x87
    }.items():
        struct.pack_into("<Q", page, at, value)
    struct.pack_into("<I", page, 0x408, 0x1F80)  # MXCSR
    struct.pack_into("<H", page, 0x410, 0x37F)   # x87 control word
    return bytes(page)


def _segments(starts_at: int) -> Iterator[tuple[int, int, int, int]]:
    for at in (0x00, 0x20, 0x30, 0x40, 0x50):  # ES, SS, DS, FS, GS
        yield at, 0, 0x93, 0
    yield 0x10, 0xF000, 0x9B, starts_at & 0xFFFF0000  # CS
    for at, attributes in ((0x60, 0), (0x70, 0x82), (0x80, 0), (0x90, 0x8B)):  # GDTR, LDTR, IDTR, TR
        yield at, 0, attributes, 0


def report(measurement: bytes, *, policy: int = 0x30000, host_data: bytes = bytes(32)) -> bytes:
    """ATTESTATION_REPORT, version 2, of a guest that says this of itself; nobody signed it."""
    data = bytearray(1184)
    struct.pack_into("<IIQ", data, 0, 2, 0, policy)
    data[0x90:0xC0], data[0xC0:0xE0] = measurement, host_data
    return bytes(data)
