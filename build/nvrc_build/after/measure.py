# SPDX-License-Identifier: Apache-2.0
"""The launch measurement that a verifier must expect: AMD SEV-SNP, kernel hashes on, QEMU.

Computed from firmware, kernel, initrd, command line, number and type of virtual CPUs by sev-snp-measure; nothing of it
is read from a running machine. What a verifier is given of it: reference.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nvrc_build.after.kernel_image import MOST_BYTES
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.supply.room import Room

MOST_VCPUS = 4096
MOST = {"firmware": 64 << 20, "kernel": MOST_BYTES, "initrd": Room().file_size}
_SHAPES = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
# SNP active and nothing else, as QEMU sets it for a guest without further features.
GUEST_FEATURES = 0x1


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is measured at launch. An image on a disk has no initrd: its root hash is part of the command line."""

    firmware: Path
    kernel: Path
    initrd: Path | None
    cmdline: str
    vcpus: int
    vcpu_type: str


Digest = Callable[[Launch], bytes]


def snp_digest(launch: Launch) -> bytes:
    """By IBM's sev-snp-measure, which this is a thin layer over."""
    try:
        # An extra that only this command needs.
        from sevsnpmeasure import guest, vcpu_types  # type: ignore[import-untyped]  # noqa: PLC0415
        from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as missing:
        raise WrongCallError("sev-snp-measure is not installed", "run: pip install 'nvrc[build]'"
                             ) from missing
    check_launch(launch)  # also of other images, which explain a report
    signature = vcpu_types.CPU_SIGS.get(launch.vcpu_type)
    if signature is None:
        raise WrongCallError(f"vCPU type {launch.vcpu_type!r} is unknown",
                             f"known: {', '.join(sorted(vcpu_types.CPU_SIGS))}")
    try:
        launch.cmdline.encode()
    except UnicodeEncodeError as wrong:
        raise WrongCallError("the command line is not UTF-8", "correct --cmdline") from wrong
    try:
        return bytes(guest.calc_launch_digest(
            SevMode.SEV_SNP, launch.vcpus, signature, str(launch.firmware), str(launch.kernel),
            str(launch.initrd) if launch.initrd is not None else "", launch.cmdline, GUEST_FEATURES))
    except (ValueError, RuntimeError, IndexError, AssertionError, struct.error) as wrong:
        raise BuildError(f"firmware {launch.firmware} cannot be measured: {str(wrong) or type(wrong).__name__}",
                         "use an OVMF build with SEV metadata (AmdSev)") from wrong


def check_launch(launch: Launch) -> None:
    for name, path, remedy in (("firmware", launch.firmware, "give --firmware a file"),
                               ("kernel", launch.kernel, "build the image first, or give --kernel the host's"),
                               ("initrd", launch.initrd, "build the image first")):
        if path is not None:
            check_file(name, path, remedy)


def check_file(name: str, path: Path, remedy: str) -> None:
    """Each is read whole, and so must be of a size that it can have."""
    if not path.is_file():
        raise WrongCallError(f"{name} {path} does not exist", remedy)
    if (size := path.stat().st_size) > MOST[name]:
        raise WrongCallError(f"{name} {path} has {size} bytes; at most {MOST[name]} are possible", remedy)


def measure_shapes(launch: Launch, shapes: tuple[int, ...], digest: Digest = snp_digest) -> dict[int, bytes]:
    """A digest for each number of virtual CPUs: all else of a pod's shape (memory, devices) is not measured."""
    check_launch(launch)
    return {vcpus: digest(replace(launch, vcpus=vcpus)) for vcpus in shapes}


def parse_shapes(text: str) -> tuple[int, ...]:
    """`4`, `1-8` or `1,2,8-12`: numbers of virtual CPUs, each once, in order."""
    if not _SHAPES.fullmatch(text):
        raise WrongCallError(f"{text!r} is not a number of virtual CPUs",
                             "give one like 4, a range like 1-8, or 1,2,8-12")
    spans = [[int(number) for number in part.split("-")] for part in text.split(",")]
    for span in spans:
        if not 1 <= span[0] <= span[-1] <= MOST_VCPUS:
            raise WrongCallError(f"{text!r} is not a number of virtual CPUs",
                                 f"give numbers from 1 to {MOST_VCPUS}, upwards")
    return tuple(sorted({vcpus for span in spans for vcpus in range(span[0], span[-1] + 1)}))
