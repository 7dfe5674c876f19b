# SPDX-License-Identifier: Apache-2.0
"""A TDX firmware (TDVF): what it says of itself, what is measured of it at launch, and how it starts kernels.

MRTD is of the firmware alone: neither processors, memory nor devices are in it. From Intel's TDX module specification
(TDH.MEM.PAGE.ADD, TDH.MR.EXTEND), edk2's OvmfPkg (IntelTdxMetadata.asm, QemuKernelLoaderFsDxe, X86QemuLoadImageLib)
and QEMU's target/i386/kvm/tdx.c, which adds the sections in their order and extends each page after it was added.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from nvrc_build.ground.errors import BuildError, WrongCallError

PAGE, CHUNK = 4096, 256
BFV, CFV, TEMP_MEM = 0, 1, 3
EXTENDED = 1
_FOOTER, _METADATA, _LZMA = (uuid.UUID(text).bytes_le for text in (
    "96b582de-1fb2-45f7-baea-a366c55a082d", "e47a6535-984a-4798-865e-4685a7bf8ec2",
    "ee4e5898-3914-4259-9d6e-dc7bd79403cf"))
_AFTER_TABLE = 32
_ENTRY = 18  # length and GUID, behind the data
_MOST_SECTIONS = 64
_MOST_UNPACKED = 64 << 20
_MOST_VOLUMES = 64  # each is tried with all that is behind it
_MOST_MEMORY = 128 << 20  # edk2's dictionaries have 16 MiB
# edk2-stable202502 is the first that takes blobs by name; edk2-stable202508 the first with the initrd before the line.
_NAMED_BLOBS, _INITRD_FIRST, _INITRD_LAST = b"etc/boot/", b"initrd=initrd \0", b" initrd=initrd\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    offset: int
    raw: int
    address: int
    size: int
    kind: int
    attributes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """How it starts a kernel that QEMU gives it."""

    initrd_first: bool

    def options(self, cmdline: str, *, has_initrd: bool) -> str:
        """What the kernel is started with: how it finds its initrd is a word of it."""
        if not has_initrd:
            return cmdline
        return f"initrd=initrd {cmdline}" if self.initrd_first else f"{cmdline} initrd=initrd"


def read_firmware(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as wrong:
        raise WrongCallError(f"firmware {path} cannot be read: {wrong.strerror}", "give --firmware a file") from wrong


def measure_firmware(path: Path, data: bytes, *, pages_first: bool = False) -> bytes:
    """MRTD: every page of every section, and the contents of those that are measured.

    Each page is measured as it is added; `pages_first` is the order of KVMs before Linux 6.16, section by section.
    """
    digest = hashlib.sha384()
    for section in read_sections(path, data):
        pages = range(0, section.size, PAGE)
        if pages_first:
            for at in pages:
                digest.update(_record(b"MEM.PAGE.ADD", section.address + at))
        for at in pages:
            if not pages_first:
                digest.update(_record(b"MEM.PAGE.ADD", section.address + at))
            if section.attributes & EXTENDED:
                for chunk in range(at, at + PAGE, CHUNK):
                    digest.update(_record(b"MR.EXTEND", section.address + chunk))
                    digest.update(data[section.offset + chunk:section.offset + chunk + CHUNK])
    return digest.digest()


def _record(name: bytes, address: int) -> bytes:
    return struct.pack("<16sQ104x", name, address)


def read_sections(path: Path, data: bytes) -> tuple[Section, ...]:
    """As QEMU reads them, and with its refusals."""
    at = len(data) - _metadata_offset(path, data)
    if not 0 <= at <= len(data) - 16:
        raise _wrong(path, "its TDX metadata are outside of it")
    signature, _, version, count = struct.unpack_from("<4sIII", data, at)
    if (signature, version) != (b"TDVF", 1) or not 0 < count <= _MOST_SECTIONS or at + 16 + 32 * count > len(data):
        raise _wrong(path, "its TDX metadata are damaged or of another version")
    return tuple(_section(path, data, at + 16 + 32 * number) for number in range(count))


def _section(path: Path, data: bytes, at: int) -> Section:
    offset, raw, address, size, kind, attributes = struct.unpack_from("<IIQQII", data, at)
    is_copied = kind in (BFV, CFV)
    if kind > TEMP_MEM:
        raise _wrong(path, f"its TDX metadata have a section of type {kind}, which QEMU refuses")
    if address % PAGE or size % PAGE or not size or size > len(data) + _MOST_UNPACKED:
        raise _wrong(path, f"its TDX section at {address:#x} is not of whole pages")
    if raw != (size if is_copied else 0) or (attributes & EXTENDED and not is_copied):
        raise _wrong(path, f"its TDX section at {address:#x} has {raw:#x} bytes in the file and {size:#x} in memory")
    if offset + raw > len(data):
        raise _wrong(path, f"its TDX section at {address:#x} ends at byte {offset + raw:#x} of a file of "
                     f"{len(data):#x} (probably OVMF_CODE, which lacks the variables)")
    return Section(offset=offset, raw=raw, address=address, size=size, kind=kind, attributes=attributes)


def _metadata_offset(path: Path, data: bytes) -> int:
    """From the table that ends 32 bytes before the file does; an entry's length and GUID come after its data."""
    end = len(data) - _AFTER_TABLE
    if end < _ENTRY or data[end - 16:end] != _FOOTER:
        raise _wrong(path, "it has no table of OVMF at its end")
    first = end - struct.unpack_from("<H", data, end - _ENTRY)[0]
    at = end - _ENTRY
    while first >= 0 and at - _ENTRY >= first:
        length = struct.unpack_from("<H", data, at - _ENTRY)[0]
        if length < _ENTRY or at - length < first:
            break
        if data[at - 16:at] == _METADATA and length == _ENTRY + 4:
            return int(struct.unpack_from("<I", data, at - length)[0])
        at -= length
    raise _wrong(path, "it has no TDX metadata")


def _wrong(path: Path, why: str) -> BuildError:
    return BuildError(f"firmware {path} cannot be measured: {why}", "use an OVMF build with TDX metadata (IntelTdx)")


def read_loader(path: Path, data: bytes) -> Loader:
    """By the texts of its drivers, which lie in a volume that is packed: edk2 does not say its version anywhere.

    An older one is refused: what it puts into RTMR[1] changed with edk2-stable202411, and its texts do not show that.
    """
    found: set[bytes] = set()
    for volume in chain((data,), _volumes(path, data)):
        found |= {text for text in (_NAMED_BLOBS, _INITRD_FIRST, _INITRD_LAST) if text in volume}
    named, first, last = (text in found for text in (_NAMED_BLOBS, _INITRD_FIRST, _INITRD_LAST))
    if not named or first == last:
        raise BuildError(f"how firmware {path} starts a kernel is unknown: it is not one of edk2-stable202502 or later",
                         "use an OVMF build with TDX metadata (IntelTdx) of a later release")
    return Loader(initrd_first=first)


def _volumes(path: Path, data: bytes) -> Iterator[bytes]:
    """GUID-defined sections of LZMA: the GUID, where the data begin (from 4 bytes before the GUID), attributes."""
    at, left = data.find(_LZMA), _MOST_UNPACKED
    if data.count(_LZMA) > _MOST_VOLUMES:
        raise _wrong(path, f"it has {data.count(_LZMA)} volumes that are packed; at most {_MOST_VOLUMES} are possible")
    while at >= 0:
        begin = at - 4 + int.from_bytes(data[at + 16:at + 18], "little")
        try:
            volume = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MOST_MEMORY).decompress(data[begin:], left + 1)
        except lzma.LZMAError:
            volume = b""  # the GUID itself, in the code that unpacks
        left -= len(volume)
        if left < 0:
            raise _wrong(path, f"its volumes unpack to more than {_MOST_UNPACKED} bytes")
        yield volume
        at = data.find(_LZMA, at + 1)
