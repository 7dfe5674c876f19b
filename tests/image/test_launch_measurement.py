# SPDX-License-Identifier: Apache-2.0
"""The launch measurement by sev-snp-measure itself, over a firmware with just the metadata that it reads."""

from __future__ import annotations

import json
import struct
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc_build.cli import main
from nvrc_build.errors import BuildError
from nvrc_build.measure import Launch, snp_digest

SIZE = 1 << 20
# The table at the end of an OVMF file: where kernel hashes go, the reset address, and where the SEV metadata lie.
FOOTER, HASHES, RESET, METADATA = (uuid.UUID(text).bytes_le for text in (
    "96b582de-1fb2-45f7-baea-a366c55a082d", "7255371f-3a3b-4b04-927b-1da6efa8d454",
    "00f771de-1a7e-4fcb-890e-68c77e2fb44e", "dc886566-984a-4798-a75e-5585a7bf67cc"))
SECURE_MEMORY, SECRETS, CPUID, KERNEL_HASHES = 1, 2, 3, 0x10


def make_firmware() -> bytes:
    sections = ((0x800000, 0x1000, SECURE_MEMORY), (0x801000, 0x1000, SECRETS), (0x802000, 0x1000, CPUID),
                (0x803000, 0x1000, KERNEL_HASHES))
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *section) for section in sections)
    table = b"".join(data + struct.pack("<H", len(data) + 18) + guid for guid, data in (
        (METADATA, struct.pack("<I", 4096)), (RESET, struct.pack("<I", 0xFFFFFFF0)),
        (HASHES, struct.pack("<II", 0x803000, 0x400))))
    footer = table + struct.pack("<H", len(table) + 18) + FOOTER
    image = bytearray(SIZE)
    image[SIZE - 4096:SIZE - 4096 + len(metadata)] = metadata
    image[SIZE - 32 - len(footer):SIZE - 32] = footer
    return bytes(image)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    (tmp_path / "ovmf").write_bytes(make_firmware())
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    return Launch(firmware=tmp_path / "ovmf", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd",
                  cmdline="console=hvc0", vcpus=1, vcpu_type="EPYC-v4")


def test_everything_that_is_measured_changes_the_digest(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    launches = (launch, replace(launch, kernel=tmp_path / "other"), replace(launch, initrd=tmp_path / "other"),
                replace(launch, initrd=None), replace(launch, cmdline="console=hvc1"), replace(launch, vcpus=2),
                replace(launch, vcpu_type="EPYC-Milan"))
    digests = [snp_digest(one) for one in launches]
    assert {len(digest) for digest in digests} == {48}
    assert len(set(digests)) == len(launches)
    assert snp_digest(launch) == digests[0]


def test_a_firmware_without_metadata_and_an_unknown_cpu_are_refused_in_words(launch: Launch) -> None:
    with pytest.raises(BuildError, match=r"vCPU type 'i486' is unknown; known: .*EPYC-Milan"):
        snp_digest(replace(launch, vcpu_type="i486"))
    launch.firmware.write_bytes(b"\0" * SIZE)
    with pytest.raises(BuildError, match="use an OVMF build with SEV metadata"):
        snp_digest(launch)


def test_the_command_writes_reference_values_and_says_what_differs(launch: Launch, tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({
        "version": 1, "image": "x", "format": "initrd", "parts": {}, "packages": [], "files": []}))
    values = tmp_path / "values.json"
    words = ["measure", str(tmp_path), "--firmware", str(launch.firmware), "--kernel", str(launch.kernel), "--cmdline"]
    assert main([*words, launch.cmdline, "-o", str(values)]) == 0
    assert json.loads(values.read_text())["sev_snp"]["launch_measurement"] == snp_digest(launch).hex()
    assert main([*words, launch.cmdline, "--compare", str(values)]) == 0
    capsys.readouterr()
    assert main([*words, "other", "--compare", str(values)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in said] == ["cmdline", "launch_measurement"]
