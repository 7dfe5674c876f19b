# SPDX-License-Identifier: Apache-2.0
"""The launch measurement, over a firmware with just the metadata that is read of it.

What the factory says (by sev-snp-measure) is held against a second computation, written from AMD's and QEMU's documents
(snp.py); and that one against digests that others published for edk2's AmdSev and OvmfX64 firmware of May 2024.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sevsnpmeasure.vcpu_types import CPU_SIGS  # type: ignore[import-untyped]

from fakes import snp
from fakes.firmware import SIZE, TOLD, make_firmware
from fakes.snp import Section, Started
from nvrc_build.after.measure import Launch, measure_shapes, parse_shapes, snp_digest
from nvrc_build.ground.errors import BuildError

# edk2-stable202405, OvmfPkg/AmdSev and OvmfPkg/OvmfPkgX64: what their metadata say.
AMD_SEV = snp.Firmware(
    sections=(Section(0x800000, 0x9000, snp.MEMORY), Section(0x80A000, 0x3000, snp.MEMORY),
              Section(0x80D000, 0x1000, snp.SECRET), Section(0x80E000, 0x1000, snp.CPUID_TABLE),
              Section(0x80F000, 0x1000, snp.CALLING_AREA), Section(0x810000, 0x1000, snp.HASHES),
              Section(0x811000, 0xF000, snp.MEMORY)),
    hashes_at=0x810C00, processors_start_at=0x80B004)
OVMF_X64 = replace(AMD_SEV, sections=(*AMD_SEV.sections[:5], Section(0x810000, 0x10000, snp.MEMORY)), hashes_at=0)
# Digests of the last 4 KiB of these firmware files, from which the published ones go on.
AMD_SEV_PAGES = "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74"
OVMF_X64_PAGES = "b91e6fec73d2bcc57ad5fd400a426ce02731c22ea92bc894ce675e7c9921a822977d6cf025b85f8ef4f264bff8839d20"
NOTHING = Started(b"", b"", "")


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    (tmp_path / "ovmf").write_bytes(make_firmware())
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    return Launch(firmware=tmp_path / "ovmf", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd",
                  cmdline="console=hvc0", vcpus=1, vcpu_type="EPYC-v4")


@pytest.mark.parametrize(("pages", "firmware", "started", "cpus", "published"), [
    (AMD_SEV_PAGES, AMD_SEV, NOTHING, 1,
     "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5"),
    (AMD_SEV_PAGES, AMD_SEV, replace(NOTHING, cmdline="console=ttyS0 loglevel=7"), 1,
     "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"),
    (AMD_SEV_PAGES, AMD_SEV, None, 1,
     "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d"),
    (AMD_SEV_PAGES, AMD_SEV, NOTHING, 4,
     "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5"),
    (OVMF_X64_PAGES, OVMF_X64, None, 1,
     "da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005"),
], ids=["empty-kernel", "cmdline", "no-kernel", "four-cpus", "other-firmware"])
def test_the_second_computation_gives_the_digests_that_others_published(
        pages: str, firmware: snp.Firmware, started: Started | None, cpus: int, published: str) -> None:
    """The test vectors of virtee/sev-snp-measure and of virtee/sev (another implementation, in Rust), for EPYC-v4."""
    found = snp.launch_digest(bytes.fromhex(pages), firmware, started, cpus=cpus, signature=snp.SIGNATURES["EPYC"])
    assert found.hex() == published


@pytest.mark.parametrize(("initrd", "cmdline", "cpus"), [
    (b"initrd", "console=hvc0", 1), (b"initrd" * 4096, "", 1), (None, "root=/dev/dm-0 ro", 2), (b"initrd", "a b", 64),
], ids=["one-cpu", "no-cmdline", "disk-image", "many-cpus"])
def test_the_factory_and_the_second_computation_agree(launch: Launch, initrd: bytes | None, cmdline: str,
                                                      cpus: int) -> None:
    if initrd is not None and launch.initrd is not None:
        launch.initrd.write_bytes(initrd)
    launch = replace(launch, initrd=launch.initrd if initrd is not None else None, cmdline=cmdline, vcpus=cpus)
    expected = snp.launch_digest(snp.firmware_digest(make_firmware()), TOLD,
                                 Started(launch.kernel.read_bytes(), initrd or b"", cmdline), cpus=cpus,
                                 signature=snp.SIGNATURES["EPYC"])
    assert snp_digest(launch).hex() == expected.hex()


@pytest.mark.parametrize("name", sorted(CPU_SIGS))
def test_every_cpu_model_has_the_signature_that_amd_documents(launch: Launch, name: str) -> None:
    """`-v2` and the like are other features of one model, and these are not measured."""
    model = name if name in snp.SIGNATURES else name.rpartition("-v")[0]
    started = Started(b"kernel", b"initrd", launch.cmdline)
    expected = snp.launch_digest(snp.firmware_digest(make_firmware()), TOLD, started, cpus=2,
                                 signature=snp.SIGNATURES[model])
    assert snp_digest(replace(launch, vcpus=2, vcpu_type=name)).hex() == expected.hex()


def test_everything_that_is_measured_changes_the_digest(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    launches = (launch, replace(launch, kernel=tmp_path / "other"), replace(launch, initrd=tmp_path / "other"),
                replace(launch, initrd=None), replace(launch, cmdline="console=hvc1"), replace(launch, vcpus=2),
                replace(launch, vcpu_type="EPYC-Milan"))
    digests = [snp_digest(one) for one in launches]
    assert {len(digest) for digest in digests} == {48}
    assert len(set(digests)) == len(launches)
    assert snp_digest(launch) == digests[0]


def test_a_line_that_is_not_utf_8_is_not_laid_to_the_firmware(launch: Launch) -> None:
    with pytest.raises(BuildError, match="the command line is not UTF-8"):
        snp_digest(replace(launch, cmdline="a=\udcff"))


def test_a_firmware_without_metadata_and_an_unknown_cpu_are_refused_in_words(launch: Launch) -> None:
    with pytest.raises(BuildError, match=r"vCPU type 'i486' is unknown; known: .*EPYC-Milan"):
        snp_digest(replace(launch, vcpu_type="i486"))
    launch.firmware.write_bytes(b"\0" * SIZE)
    with pytest.raises(BuildError, match="use an OVMF build with SEV metadata"):
        snp_digest(launch)


@pytest.mark.parametrize(("text", "shapes"), [
    ("4", (4,)), ("1-4", (1, 2, 3, 4)), ("1,2,8-10", (1, 2, 8, 9, 10)), ("3,1-3", (1, 2, 3)), ("4096", (4096,)),
])
def test_shapes(text: str, shapes: tuple[int, ...]) -> None:
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize("text", ["", "0", "0-2", "4097", "3-1", "1-", "-1", "1,,2", "a", "1 2", "1-2-3", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(BuildError, match="is not a number of virtual CPUs"):
        parse_shapes(text)


def test_every_row_of_a_table_agrees_with_the_second_computation(launch: Launch) -> None:
    started = Started(b"kernel", b"initrd", launch.cmdline)
    found = measure_shapes(launch, (1, 2, 3, 8))
    assert {vcpus: digest.hex() for vcpus, digest in found.items()} == {
        vcpus: snp.launch_digest(snp.firmware_digest(make_firmware()), TOLD, started, cpus=vcpus,
                                 signature=snp.SIGNATURES["EPYC"]).hex() for vcpus in (1, 2, 3, 8)}


@pytest.mark.parametrize("name", ["firmware", "kernel", "initrd"])
def test_a_file_that_is_not_there_is_named(launch: Launch, name: str) -> None:
    path: Path = getattr(launch, name)
    path.unlink()
    with pytest.raises(BuildError, match=rf"^{name} {path} does not exist; "):
        measure_shapes(launch, (1,))
