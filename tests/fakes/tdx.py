# SPDX-License-Identifier: Apache-2.0
"""A TDX guest's measurements from the specifications alone, to hold the factory's against. Shares no code with it.

Nothing is parsed here: firmware and kernel are made here, so what lies where in them is known by numbers. Intel TDX module
base specification, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND; Microsoft's Authenticode for PE; Linux' boot protocol
(Documentation/arch/x86/boot.rst); UEFI 2.10 38.4.1 for the registers.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

PAGE = 0x1000
FOOTER, METADATA, LZMA = (uuid.UUID(text).bytes_le for text in (
    "96b582de-1fb2-45f7-baea-a366c55a082d", "e47a6535-984a-4798-865e-4685a7bf8ec2", "ee4e5898-3914-4259-9d6e-dc7bd79403cf"))
NEW = b"etc/boot/\0 initrd=initrd \0"
MIDDLE = b"etc/boot/\0 initrd=initrd\0"
OLD = b" initrd=initrd\0"
CODE, VARIABLES = 0x20000, 0x8000  # bytes of the file
# OvmfPkg/IntelTdx: code, variables, hand-off block, scratch memory. Offset and length in the file, address, length, kind, attributes.
Row = tuple[int, int, int, int, int, int]
SECTIONS: tuple[Row, ...] = (
    (VARIABLES, CODE, (1 << 32) - CODE, CODE, 0, 1), (0, VARIABLES, (1 << 32) - CODE - VARIABLES, VARIABLES, 1, 0),
    (0, 0, 0x810000, 0x10000, 3, 0), (0, 0, 0x809000, 0x2000, 2, 0))
CHECKSUM_AT, CERTIFICATES_AT = 0x40 + 24 + 64, 0x40 + 24 + 112 + 8 * 4
SETUP_SECTORS = 15
HEADERS, CODE_SIZE, SIGNATURE = 0x400, 0x4000, 0x128


def make_tdvf(texts: bytes = NEW, *, packed: bool = True, sections: Sequence[Row] = SECTIONS, version: int = 1) -> bytes:
    """A file with the metadata of a TDX firmware, and drivers with these texts in a packed volume."""
    image = bytearray(b"".join(struct.pack("<I", number) * 1024 for number in range((CODE + VARIABLES) // PAGE)))
    volume = lzma.compress(b"drivers" + texts + bytes(9), lzma.FORMAT_ALONE) if packed else texts
    driver = LZMA + struct.pack("<HH", 24, 1) + volume
    image[VARIABLES + 0x100:VARIABLES + 0x100 + len(driver)] = driver
    image[VARIABLES + 0x10:VARIABLES + 0x20] = LZMA  # as the code that unpacks has it
    told = metadata(sections, version)
    image[-0x2000:-0x2000 + len(told)] = told
    finish(image, (METADATA, struct.pack("<I", 0x2000)), (uuid.UUID(int=7).bytes_le, b"another"))
    return bytes(image)


def metadata(sections: Sequence[Row], version: int = 1) -> bytes:
    told = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(sections), version, len(sections))
    return told + b"".join(struct.pack("<IIQQII", *row) for row in sections)


def finish(image: bytearray, *entries: tuple[bytes, bytes]) -> None:
    """The table at the end: each entry's data, its length, its GUID."""
    rows = b"".join(data + struct.pack("<H", len(data) + 18) + guid for guid, data in entries)
    table = rows + struct.pack("<H", len(rows) + 18) + FOOTER
    image[-32 - len(table):-32] = table


# A firmware of which others published the MRTD: google/gce-tcb-verifier, testing/fakeovmf. All of it is zeros but a table
# and metadata, which are of SEV, too. Theirs say 0 bytes for the variables, which QEMU refuses and nothing measures.
PUBLISHED_SIZE, _SEV_METADATA, _SEV_RESET = 2 << 20, "dc886566-984a-4798-a75e-5585a7bf67cc", "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
PUBLISHED_SECTIONS: tuple[Row, ...] = (
    (0x20000, 0x1E0000, 0xFFE20000, 0x1E0000, 0, 1), (0, 0x20000, 0xFFE00000, 0x20000, 1, 0), (0, 0, 0x810000, 0x10000, 3, 0),
    (0, 0, 0x80B000, 0x2000, 3, 0), (0, 0, 0x809000, 0x2000, 2, 0), (0, 0, 0x800000, 0x6000, 3, 0))
PUBLISHED_MRTD = "6e540be4917f24f74cc3292b59803d06dc7c38eb4a3c1fd6be9c735ba74bb7a23e25f98da94779d17508b243e4fb582b"


def make_published_tdvf() -> bytes:
    image, at, told = bytearray(PUBLISHED_SIZE), 0x110, metadata(PUBLISHED_SECTIONS)
    image[at:at + len(told)] = told
    finish(image, (METADATA, struct.pack("<I", PUBLISHED_SIZE - at)),
           (uuid.UUID(_SEV_METADATA).bytes_le, struct.pack("<I", PUBLISHED_SIZE)),
           (uuid.UUID(_SEV_RESET).bytes_le, struct.pack("<I", 0xFF0000FF)))
    return bytes(image)


def mrtd(image: bytes, sections: Sequence[Row] = SECTIONS) -> bytes:
    """The whole stream of records at once."""
    stream = bytearray()
    for offset, _, address, size, _, attributes in sections:
        for page in range(address, address + size, PAGE):
            stream += b"MEM.PAGE.ADD".ljust(16, b"\0") + page.to_bytes(8, "little") + bytes(104)
            for chunk in range(page, page + PAGE if attributes else page, 256):
                at = offset + chunk - address
                stream += b"MR.EXTEND".ljust(16, b"\0") + chunk.to_bytes(8, "little") + bytes(104) + image[at:at + 256]
    return hashlib.sha384(stream).digest()


def make_kernel(name: str = "a kernel", *, is_signed: bool = True, above_4g: bool = True) -> bytes:
    """A bzImage with an EFI stub: an image of two sections, setup header, and a signature behind them."""
    size = HEADERS + CODE_SIZE + 0x200
    image = bytearray(b"".join(struct.pack("<I", number) for number in range(size // 4)))
    image[:0x40] = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    image[0x40:0x58] = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 2, 0, 0, 0, 112 + 8 * 6, 0x206)
    optional = bytearray(112 + 8 * 6)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<III", optional, 56, 0x10000, HEADERS, 0xABCD)
    struct.pack_into("<I", optional, 108, 6)
    if is_signed:
        struct.pack_into("<II", optional, 112 + 8 * 4, size, SIGNATURE)
    image[0x58:0x58 + len(optional)] = optional
    # The second section comes first in the file.
    for row, (raw, at) in enumerate(((0x200, HEADERS + CODE_SIZE), (CODE_SIZE, HEADERS))):
        image[0xF8 + 40 * row:0xF8 + 40 * (row + 1)] = struct.pack("<8sIIIIIIHHI", b".text", raw, at, raw, at, 0, 0, 0, 0, 0)
    image[0x1F1] = SETUP_SECTORS
    image[0x202:0x206], image[0x206:0x208] = b"HdrS", struct.pack("<H", 0x20F)
    image[0x210], image[0x211], image[0x236:0x238] = 0, 1, struct.pack("<H", 2 if above_4g else 1)
    image[0x22C:0x230] = struct.pack("<I", 0x7FFFFFFF)
    image[0x600:0x600 + len(name)] = name.encode()
    return bytes(image) + (b"signature".ljust(SIGNATURE, b"!") if is_signed else b"")


def kernel_event(image: bytes, *, is_signed: bool = True) -> bytes:
    """All of the file but the checksum, the entry of the signature, and the signature."""
    end = len(image) - (SIGNATURE if is_signed else 0)
    return hashlib.sha384(image[:CHECKSUM_AT] + image[CHECKSUM_AT + 4:CERTIFICATES_AT] + image[CERTIFICATES_AT + 8:end]).digest()


def loaded_by_old_qemu(image: bytes, initrd_at: int, initrd: int) -> bytes:
    """The fields of the header that a boot loader writes, as QEMU did before it offered the file itself."""
    fields = {0x210: b"\xb0", 0x211: b"\x81", 0x224: struct.pack("<H", 0xFE00), 0x228: struct.pack("<I", 0x20000)}
    if initrd:
        fields |= {0x218: struct.pack("<I", initrd_at), 0x21C: struct.pack("<I", initrd)}
    for at, value in fields.items():
        image = image[:at] + value + image[at + len(value):]
    return image


@dataclass(frozen=True, slots=True)
class Told:
    """What a guest tells: MRTD and the two registers."""

    mr_td: bytes
    rtmr_1: bytes
    rtmr_2: bytes


def told(firmware: bytes, kernel: bytes, options: str, initrd: bytes | None) -> Told:
    """`options`: all that the kernel is started with."""
    started = [hashlib.sha384(b"".join(bytes((ord(sign), 0)) for sign in options + "\0")).digest()] if options else []
    started += [hashlib.sha384(initrd).digest()] if initrd else []
    return Told(mrtd(firmware), replay([kernel_event(kernel), *ACTIONS]), replay(started))


def replay(events: Sequence[bytes]) -> bytes:
    register = b"\0" * 48
    for event in events:
        register = hashlib.sha384(register + event).digest()
    return register


# Of the log of a guest of edk2-stable202502: calling an application, a line drawn, leaving boot services, left.
ACTIONS = tuple(bytes.fromhex(text) for text in (
    "77a0dab2312b4e1e57a84d865a21e5b2ee8d677a21012ada819d0a98988078d3d740f6346bfe0abaa938ca20439a8d71",
    "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0",
    "214b0bef1379756011344877743fdc2a5382bac6e70362d624ccf3f654407c1b4badf7d8f9295dd3dabdef65b27677e0",
    "0a2e01c85deae718a530ad8c6d20a84009babe6c8989269e950d8cf440c6e997695e64d455c4174a652cd080f6230b74"))


def quote(guest: Told, *, version: int = 4, config: bytes = bytes(48), attributes: int = 0) -> bytes:
    """Version 5 says the type and size of the body before it; the size of the signature is behind it."""
    body = bytearray(584)
    body[120:128], body[128:136] = attributes.to_bytes(8, "little"), bytes.fromhex("e742060000000000")
    body[136:184], body[184:232] = guest.mr_td, config
    for number, register in enumerate((b"\x10" * 48, guest.rtmr_1, guest.rtmr_2, b"\x13" * 48)):
        body[328 + 48 * number:376 + 48 * number] = register
    header = struct.pack("<HHI", version, 2, 0x81) + bytes(40)
    return header + (struct.pack("<HI", 2, 584) if version == 5 else b"") + bytes(body) + struct.pack("<I", 100) + bytes(100)
