# SPDX-License-Identifier: Apache-2.0
"""The launch measurement that a verifier must expect: AMD SEV-SNP, kernel hashes on, QEMU.

Computed from firmware, kernel, initrd, command line, number and type of virtual CPUs by sev-snp-measure; nothing of it
is read from a running machine. The file of reference values says beside each digest what it was computed from.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.apt import file_sha256
from nvrc_build.errors import BuildError

VERSION = 1
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
        raise BuildError("sev-snp-measure is not installed", "run: pip install 'nvrc[build]'"
                         ) from missing
    signature = vcpu_types.CPU_SIGS.get(launch.vcpu_type)
    if signature is None:
        raise BuildError(f"vCPU type {launch.vcpu_type!r} is unknown",
                         f"known: {', '.join(sorted(vcpu_types.CPU_SIGS))}")
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
        if path is not None and not path.is_file():
            raise BuildError(f"{name} {path} does not exist", remedy)
    if not 1 <= launch.vcpus <= 4096:
        raise BuildError(f"{launch.vcpus} virtual CPUs cannot be", "give --vcpus a number from 1 to 4096")


def reference_values(image: str, launch: Launch, digest: Digest = snp_digest) -> dict[str, object]:
    check_launch(launch)
    measured = digest(launch)
    return {
        "version": VERSION,
        "image": image,
        # The name and form that CoCo's attestation service compares a report with.
        "reference_values": {"snp_launch_measurement": [base64.b64encode(measured).decode()]},
        "sev_snp": {
            "launch_measurement": measured.hex(),
            "firmware_sha256": file_sha256(launch.firmware),
            "kernel_sha256": file_sha256(launch.kernel),
            "initrd_sha256": file_sha256(launch.initrd) if launch.initrd is not None else None,
            "cmdline": launch.cmdline,
            "vcpus": launch.vcpus,
            "vcpu_type": launch.vcpu_type,
            "guest_features": GUEST_FEATURES,
        },
    }


def compare_values(expected: Path, found: dict[str, object]) -> tuple[str, ...]:
    """Every field that differs, what was expected and what was found; nothing when a file agrees."""
    try:
        known = json.loads(expected.read_text(encoding="utf-8"))
        before, after = known["sev_snp"], found["sev_snp"]
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise BuildError(f"{expected} has no reference values: {wrong!r}", "write it with: nvrc-image measure -o FILE"
                         ) from wrong
    if not isinstance(before, dict) or not isinstance(after, dict):
        raise BuildError(f"{expected} has no reference values", "write it with: nvrc-image measure -o FILE")
    return tuple(f"{name}: expected {before.get(name)}, found {after.get(name)}"
                 for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name))
