# SPDX-License-Identifier: Apache-2.0
"""The same kernel and the same initrd, unpacked here instead of by an emulated processor: once, and kept by content.

A bzImage is a loader with the kernel packed behind it (Documentation/arch/x86/boot.rst, payload_offset); QEMU starts
the kernel in it as well, by its PVH entry (xen/interface/elfnote.h), and the kernel takes an initrd that is not packed.
What runs is the same to the byte, but for the random address to which the loader would have moved the kernel. What does
not fit, such as another packer, is left as it is. Measurements do not use this: how an image is packed is part of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nvrc_lab.ground.errors import LabError
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.scenario.values import REAL, Scenario

if TYPE_CHECKING:
    from nvrc_build.ground.cache import Cache
    from nvrc_lab.ground.places import Places

STAGE = "lab-unpacked"
PACKED = ZSTD, LZ4 = b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"
MAGIC_AT, MAGIC, SECTORS_AT, PAYLOAD_AT, SECTOR = 0x202, b"HdrS", 0x1F1, 0x248, 512
# The payload ends with its unpacked size, which is no part of the packed stream.
SIZE_BYTES = 4
ELF = b"\x7fELF"
# The type of the note that has the entry, and its owner.
PVH_NOTE = struct.pack("<I", 18) + b"Xen\0"

# Unpacks one file into another of the same folder; and the cache whose lock it may hold.
Unpack = Callable[[Path, Path], None]
Tools = Callable[["Places"], "tuple[Cache, Unpack]"]


def lighten(files: BootFiles, scenarios: Sequence[Scenario], accel: Accel, places: Places) -> BootFiles:
    """Unpacked files where that saves something: not on KVM, and not the large image with NVIDIA's own driver."""
    if accel is not Accel.TCG or any(one.driver == REAL for one in scenarios):
        return files
    return unpack_files(files, places)


def unpack_files(files: BootFiles, places: Places, tools: Tools | None = None) -> BootFiles:
    return BootFiles(kernel=_unpacked("kernel", files.kernel, find_payload(files.kernel.read_bytes()), places, tools),
                     initrd=_unpacked("initrd", files.initrd, files.initrd.read_bytes(), places, tools))


def _unpacked(name: str, file: Path, packed: bytes, places: Places, tools: Tools | None) -> Path:
    """Each by itself: an image that is built again most often has the kernel it had."""
    from nvrc_build.ground.cache import Cache, digest  # noqa: PLC0415
    from nvrc_build.ground.errors import BuildError  # noqa: PLC0415

    if not packed.startswith(PACKED):
        return file
    stage, key = f"{STAGE}-{name}", digest(Path(__file__).read_bytes(), packed)
    folder = Cache(places.cache.resolve()).find(stage, key)
    if folder is None:
        try:
            cache, unpack = (tools or open_tools)(places)
            folder = cache.get(stage, key, partial(_unpack, name, packed, unpack))
        except BuildError as err:
            raise LabError(f"the image could not be unpacked: {err.what}", err.hint or "run: ./dev boot") from err
    return _first(folder / name, file)


def unpack_kernel(kernel: Path, places: Places) -> Path:
    """Of one that stands alone."""
    return _unpacked("kernel", kernel, find_payload(kernel.read_bytes()), places, None)


def find_payload(kernel: bytes) -> bytes:
    """The packed kernel in a bzImage; empty where there is none, or one of another packer."""
    if kernel[MAGIC_AT:MAGIC_AT + len(MAGIC)] != MAGIC or len(kernel) < PAYLOAD_AT + 8:
        return b""
    offset, size = struct.unpack_from("<II", kernel, PAYLOAD_AT)
    start = ((kernel[SECTORS_AT] or 4) + 1) * SECTOR + offset
    payload = kernel[start:start + size]
    return payload[:-SIZE_BYTES] if payload.startswith(PACKED) and len(payload) == size else b""


def is_bootable(kernel: bytes) -> bool:
    return kernel.startswith(ELF) and PVH_NOTE in kernel


def open_tools(places: Places) -> tuple[Cache, Unpack]:
    """The pinned unpackers of the image factory, as the host may have none."""
    from nvrc_build import pipeline  # noqa: PLC0415
    from nvrc_build.ground.progress import silent  # noqa: PLC0415
    from nvrc_build.output.pack import read_initrd  # noqa: PLC0415
    from nvrc_build.supply import supply  # noqa: PLC0415

    job = pipeline.open_job("lab", cache=places.cache, agent=None, mirror=None, checkout=places.root, progress=silent)
    return job.cache, partial(read_initrd, tools=supply.root(job.supply, "tools"))


def _unpack(name: str, packed: bytes, unpack: Unpack, out: Path) -> None:
    source = out / f"{name}.from"
    source.write_bytes(packed)
    unpack(source, out / name)
    source.unlink()
    if name == "kernel" and not is_bootable((out / name).read_bytes()):
        (out / name).unlink()


def _first(*paths: Path) -> Path:
    return next(path for path in paths if path.is_file())
