# SPDX-License-Identifier: Apache-2.0
"""A firmware with just the metadata that a launch measurement reads of it."""

from __future__ import annotations

import struct
import uuid

from fakes import snp
from fakes.snp import Section

SIZE = 1 << 16
# The table at the end of an OVMF file: where kernel hashes go, the reset address, and where the SEV metadata lie.
FOOTER, HASHES, RESET, METADATA = (uuid.UUID(text).bytes_le for text in (
    "96b582de-1fb2-45f7-baea-a366c55a082d", "7255371f-3a3b-4b04-927b-1da6efa8d454",
    "00f771de-1a7e-4fcb-890e-68c77e2fb44e", "dc886566-984a-4798-a75e-5585a7bf67cc"))
TOLD = snp.Firmware(
    sections=(Section(0x800000, 0x3000, snp.MEMORY), Section(0x803000, 0x1000, snp.SECRET),
              Section(0x804000, 0x1000, snp.CPUID_TABLE), Section(0x805000, 0x1000, snp.CALLING_AREA),
              Section(0x806000, 0x1000, snp.HASHES), Section(0x807000, 0x2000, snp.MEMORY)),
    hashes_at=0x806C00, processors_start_at=0x80B004)


def make_firmware(told: snp.Firmware = TOLD) -> bytes:
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(told.sections), 1, len(told.sections))
    metadata += b"".join(struct.pack("<III", row.address, row.size, row.kind) for row in told.sections)
    table = b"".join(data + struct.pack("<H", len(data) + 18) + guid for guid, data in (
        (METADATA, struct.pack("<I", 4096)), (RESET, struct.pack("<I", told.processors_start_at)),
        (HASHES, struct.pack("<II", told.hashes_at, 0x400))))
    footer = table + struct.pack("<H", len(table) + 18) + FOOTER
    # No page is like another, so that none can be left out or taken twice.
    image = bytearray(b"".join(struct.pack("<I", number) * 1024 for number in range(SIZE // 4096)))
    image[SIZE - 4096:SIZE - 4096 + len(metadata)] = metadata
    image[SIZE - 32 - len(footer):SIZE - 32] = footer
    return bytes(image)
