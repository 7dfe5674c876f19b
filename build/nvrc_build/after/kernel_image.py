# SPDX-License-Identifier: Apache-2.0
"""A kernel as firmware measures it: the digest of a PE image, of the file or of what QEMU made of its setup header.

The digest is the one of Authenticode, as edk2 takes it (OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c): without checksum,
entry of certificates and certificates. The header is changed as QEMU does it (hw/i386/x86-common.c, x86_load_linux).
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from nvrc_build.ground.errors import BuildError, WrongCallError

MIB = 1 << 20
MOST_BYTES = 512 * MIB
# QEMU's q35: a machine of this size or more keeps 2 GiB below 4 GiB; a smaller one all of it.
STEADY_MIB = 0xB0000000 // MIB
_LOW = 0x80000000
_ACPI_DATA = 0x28000  # that QEMU keeps free at the end of low memory
_REAL, _CMDLINE = 0x10000, 0x20000
_OLDEST = 0x206  # boot protocol
_ABOVE_4G = 1 << 1
_VGA = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}
_PE32_PLUS = 0x20B
_SECURITY = 4


def read_kernel(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BuildError(f"kernel {path} has more than {MOST_BYTES >> 20} MiB",
                         "give --kernel the image that QEMU gets")
    if len(data) < 0x1000 or data[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", data, 0x206)[0] < _OLDEST:
        raise BuildError(f"kernel {path} is not a bzImage of boot protocol {_OLDEST >> 8}.{_OLDEST & 0xFF:02} or later",
                         "give --kernel the image that QEMU gets")
    return data


def change_header(path: Path, kernel: bytes, *, cmdline: str, initrd: int, memory_mib: int) -> bytes:
    """As QEMU hands it over in parts. `initrd` is its size, 0 without; where it goes depends on the memory."""
    header = bytearray(kernel)
    flags, above = header[0x211], struct.unpack_from("<H", header, 0x236)[0]
    if not flags & 1:
        raise BuildError(f"kernel {path} is not one that is loaded high", "give --kernel the image that QEMU gets")
    if "vga=" in cmdline:
        struct.pack_into("<H", header, 0x1FA, _video_mode(cmdline))
    header[0x210] = 0xB0
    header[0x211] = flags | 0x80
    struct.pack_into("<H", header, 0x224, _CMDLINE - _REAL - 0x200)
    struct.pack_into("<I", header, 0x228, _CMDLINE)
    if initrd:
        low = _LOW if memory_mib >= STEADY_MIB else memory_mib * MIB
        protocol, = struct.unpack_from("<H", header, 0x206)
        most = 0xFFFFFFFF if protocol >= 0x20C and above & _ABOVE_4G else struct.unpack_from("<I", header, 0x22C)[0]
        most = min(most, low - _ACPI_DATA - 1)
        if initrd >= most:
            raise WrongCallError(f"an initrd of {initrd >> 20} MiB does not fit into {memory_mib} MiB",
                                 "give --memory what the VM gets")
        struct.pack_into("<II", header, 0x218, (most - initrd) & ~0xFFF, initrd)
    setup = (header[0x1F1] or 4) * 512 + 512
    end = min(8192, setup)
    return bytes(header[:end]) + kernel[end:]


def _video_mode(cmdline: str) -> int:
    word = cmdline.partition("vga=")[2].partition(" ")[0]
    for name, mode in _VGA.items():
        if word.startswith(name):
            return mode
    try:
        return int(word, 0) & 0xFFFF
    except ValueError as wrong:
        raise WrongCallError(f"QEMU takes no vga={word} of a kernel command line", "correct --cmdline") from wrong


def image_digest(path: Path, image: bytes) -> bytes:
    """SHA-384 of a PE image as it is authenticated."""
    view = memoryview(image)
    try:
        header, = struct.unpack_from("<I", image, 0x3C)
        count, optional_size = struct.unpack_from("<H12xH", image, header + 6)
        optional = header + 24
        headers, = struct.unpack_from("<I", image, optional + 60)
        directories = optional + (112 if struct.unpack_from("<H", image, optional)[0] == _PE32_PLUS else 96)
        number, = struct.unpack_from("<I", image, directories - 4)
        table = [struct.unpack_from("<II", image, optional + optional_size + 40 * row + 16) for row in range(count)]
        security = directories + 8 * _SECURITY
        certificates = struct.unpack_from("<I", image, security + 4)[0] if number > _SECURITY else 0
    except struct.error as wrong:
        raise _no_pe(path, "it is cut short") from wrong
    if image[header:header + 4] != b"PE\0\0" or image[:2] != b"MZ":
        raise _no_pe(path, "it has no such header")
    parts = [(0, optional + 64), (optional + 68, headers)]
    if number > _SECURITY:
        parts[1:] = [(optional + 68, security), (security + 8, headers)]
    sections = sorted((start, start + size) for size, start in table if size)
    hashed = headers + sum(end - start for start, end in sections)
    rest = len(image) - hashed - certificates
    outside = any(not 0 <= start <= end <= len(image) for start, end in (*parts, *sections))
    if outside or (rest < 0 and hashed != len(image)):
        raise _no_pe(path, "its parts are outside of it, or overlap")
    digest = hashlib.sha384()
    for start, end in (*parts, *sections, *([(hashed, hashed + rest)] if rest > 0 else [])):
        digest.update(view[start:end])
    return digest.digest()


def _no_pe(path: Path, why: str) -> BuildError:
    return BuildError(f"kernel {path} is not an image that firmware starts (PE): {why}",
                      "give --kernel a bzImage with an EFI stub (CONFIG_EFI_STUB)")
