# SPDX-License-Identifier: Apache-2.0
"""An attestation report held against an image: does it say what this image would, and if not, which input is another.

A measurement cannot be taken apart, so the inputs are exchanged one at a time (number and model of processors,
firmware, command line, the kernel and initrd of other images) until one gives what the report says. The report's
signature is not looked at: that is a verifier's work, this explains why one refuses. Follows the SEV-SNP firmware ABI
(ATTESTATION_REPORT) and Intel's TDX quote (versions 4 and 5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nvrc.params.initdata import Initdata
from nvrc_build.after.measure import Launch, snp_digest
from nvrc_build.ground.errors import BuildError, WrongCallError

SNP_SIZE, SIZE_LIMIT = 1184, 64 << 10
QUOTE_HEADER, TDX_TEE, TD_BODY = 48, 0x81, 584
TD_BODIES = ((2, TD_BODY), (3, 648))  # of TDX 1.0 and 1.5, which has more at its end
TD_MIGRATABLE = 1 << 29
DEBUGGED = "the guest may be debugged by the host"
MOST_TRIED = 64
TYPES = ("EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin")
Digest = Callable[[Launch], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`kind`: SEV-SNP or TDX. `bound`: HOST_DATA or MRCONFIGID. `measurement`: of the launch; MRTD for TDX.

    `doubts`: why a verifier refuses it, whatever was measured. `registers`: RTMRs. `features`: XFAM, as a verifier
    prints it."""

    kind: str
    measurement: bytes
    bound: bytes
    doubts: tuple[str, ...]
    policy: int
    registers: tuple[bytes, ...] = ()
    features: bytes = b""


def read_report(path: Path) -> Report:
    try:
        with path.open("rb") as stream:
            data = stream.read(SIZE_LIMIT)
    except OSError as wrong:
        raise WrongCallError(f"{path} cannot be read: {wrong.strerror}", "name a report or a quote") from wrong
    if len(data) >= QUOTE_HEADER + 6 and struct.unpack_from("<H2xI", data) in ((4, TDX_TEE), (5, TDX_TEE)):
        return _quote(path, data)
    if len(data) == SNP_SIZE and 2 <= struct.unpack_from("<I", data)[0] <= 5:
        policy = struct.unpack_from("<Q", data, 8)[0]
        return Report(kind="SEV-SNP", policy=policy, measurement=data[0x90:0xC0], bound=data[0xC0:0xE0],
                      doubts=tuple(_doubts(policy, struct.unpack_from("<I", data, 0x30)[0])))
    raise BuildError(f"{path} ({len(data)} bytes) is neither a SEV-SNP report of {SNP_SIZE} bytes nor a TDX quote",
                     "write the report as the guest's configfs-tsm gives it (outblob)")


def _doubts(policy: int, level: int) -> Iterator[str]:
    if policy & 1 << 19:
        yield DEBUGGED
    if level:
        yield f"the report was asked for at VMPL {level}, and verifiers take 0"


def _quote(path: Path, data: bytes) -> Report:
    """Version 5 says the type and size of the body before it. Behind it are the size of the signature, and that."""
    at, size = QUOTE_HEADER, TD_BODY
    if struct.unpack_from("<H", data)[0] == 5:
        kind, size = struct.unpack_from("<HI", data, at)
        at += 6
        if (kind, size) not in TD_BODIES:
            raise BuildError(f"{path} is a quote with a body of type {kind} and {size} bytes, not one of TDX",
                             "read it again from configfs-tsm")
    body, behind = data[at:at + size], data[at + size:]
    if len(behind) < 4 or len(behind) - 4 < struct.unpack_from("<I", behind)[0]:
        raise BuildError(f"{path} is a TDX quote that is cut short", "read it again from configfs-tsm")
    registers = tuple(body[328 + 48 * index:376 + 48 * index] for index in range(4))
    return Report(kind="TDX", policy=0, measurement=body[136:184], bound=body[184:232], features=body[128:136],
                  doubts=tuple(_td_doubts(struct.unpack_from("<Q", body, 120)[0])), registers=registers)


def _td_doubts(attributes: int) -> Iterator[str]:
    """TD attributes: any of the first eight makes a TD one that is not trusted."""
    if attributes & 1:
        yield DEBUGGED
    if attributes & 0xFE:
        yield f"the guest has the attributes {attributes & 0xFE:#x}, which a trusted one has not"
    if attributes & TD_MIGRATABLE:
        yield "the guest may be migrated by the host"


def compare(report: Report, launch: Launch, shapes: Sequence[int], *, policy: int, initdata: Initdata | None,
            others: Sequence[tuple[str, Launch]] = (), digest: Digest = snp_digest) -> tuple[str, ...]:
    """What differs, a line each; nothing where the report is one of this image. For SEV-SNP."""
    return (*_measurement(report, launch, shapes, others, digest), *_policy(report, policy), *bound(report, initdata))


def bound(report: Report, initdata: Initdata | None) -> Iterator[str]:
    """What the guest was started with beside the image; for either kind."""
    name = "HOST_DATA" if report.kind == "SEV-SNP" else "MRCONFIGID"
    expected = initdata.bound(len(report.bound)) if initdata is not None else bytes(len(report.bound))
    if report.bound != expected:
        whose = "the digest of the initdata" if initdata is not None else "that of a guest without initdata"
        yield f"initdata: {name} is {report.bound.hex()}, and {whose} is {expected.hex()}"
    yield from (f"policy: {what}" for what in report.doubts)


def _measurement(report: Report, launch: Launch, shapes: Sequence[int], others: Sequence[tuple[str, Launch]],
                 digest: Digest) -> Iterator[str]:
    if any(digest(replace(launch, vcpus=vcpus)) == report.measurement for vcpus in shapes):
        return
    for told, candidate in _candidates(launch, shapes, others):
        try:
            is_it = digest(candidate) == report.measurement
        except BuildError:
            continue  # what cannot be measured was not started
        if is_it:
            yield told
            return
    yield (f"measurement: {report.measurement.hex()} is not one of this image; neither another number or model of "
           "processors alone explains it, nor another input that was given")


def _candidates(launch: Launch, shapes: Sequence[int],
                others: Sequence[tuple[str, Launch]]) -> Iterator[tuple[str, Launch]]:
    """One input exchanged at a time, the cheap ones first."""
    expected = f"{shapes[0]}" if len(shapes) == 1 else f"{shapes[0]} to {shapes[-1]}"
    for vcpus in range(1, MOST_TRIED + 1):
        if vcpus not in shapes:
            yield f"vCPUs: the machine was started with {vcpus}, expected {expected}", replace(launch, vcpus=vcpus)
    for kind in TYPES:
        if kind != launch.vcpu_type:
            for vcpus in shapes:
                yield (f"vCPU type: the machine was started with {kind}, expected {launch.vcpu_type}",
                       replace(launch, vcpus=vcpus, vcpu_type=kind))
    for told, other in others:
        for vcpus in shapes:
            yield told, replace(other, vcpus=vcpus)


def _policy(report: Report, policy: int) -> Iterator[str]:
    if report.policy != policy:
        yield f"policy: the guest was started with {report.policy:#x}, expected {policy:#x}"
