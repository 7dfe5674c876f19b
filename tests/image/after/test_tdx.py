# SPDX-License-Identifier: Apache-2.0
"""Measurements of TDX: against a second computation, registers of guests that others published, and wrong firmware and kernels.

The two quotes are of real guests (Dstack-TEE/dstack, verifier/fixtures: quote-report.json, tdx-lite-getquote.json), the
log with its registers is Trustee's (deps/eventlog, CCEL_data_ovmf), whose firmware drew no line in RTMR[1] yet. The
MRTD is google/gce-tcb-verifier's (verify/verifytest, CleanTdxExampleMeasurement), the event of a command line is
of a guest, too (oasisprotocol/cli, build/measurement/tdx_qemu_test.go).
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import tdx as second
from fakes.firmware import make_firmware
from fakes.kata_images import make_image
from nvrc_build.after import kernel_image, reference, tdvf, tdx
from nvrc_build.after.measure import Launch
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError

LINE = "console=hvc0"
INITRD = b"initrd" * 4096


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    (tmp_path / "tdvf").write_bytes(second.make_tdvf())
    (tmp_path / "kernel").write_bytes(second.make_kernel())
    (tmp_path / "initrd").write_bytes(INITRD)
    return Launch(firmware=tmp_path / "tdvf", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd", cmdline=LINE, vcpus=1,
                  vcpu_type="EPYC-v4")


def found(machine: tdx.Machine, memory_mib: int = 4096) -> second.Told:
    row = machine.registers(memory_mib)
    return second.Told(row.mr_td, row.rtmr_1, row.rtmr_2)


@pytest.mark.parametrize(("kernel_event", "rtmr_1", "events", "rtmr_2"), [
    ("0761fbfa317a42d8edbe9e404178d102adc059cface98c5e07d1d535371c145c3497fd2a19b8398568b8c8a6f95e0a86",
     "a1b79d76021970f57c45c4a7c395f780bab37011a4df27fe44e8559bd1abb4d6e52f12f866d1d08405448eb797a5970f",
     ("4027cb4ec64dbc24b6d98d9470daeefc749bbb6a9b011762d215f6ed3eb833d58fd72d9ad850958f72878182e6f61924",
      "63e06e29cf98f2fce71abd3a9629dff48457b47c010b64e11f7a2b42dd99bfa14ee35660b3f5d3fc376261d6ba9a6d6b"),
     "1e31b59d605df7ee8160cf7966be9bafa6d0e1905de7e09695a24cd9748e71a603a51fae1297619fa0c30517addbcd07"),
    ("ac7e632dcf5cd2a1fe5c1f41f4d9b8219570e64ed3c61038fdbf25404e6f542ffd57f276bc5076307efaf882e6d64177",
     "2023546e7f3b9d1228e274f70c44d481162540f8452544520a796a52f06879709b81a824a26792a7822327504b0d2aee",
     ("786280842b7364287a3a70d96f7e309252857beb45fb1f91314a2ea863db0adc04c8431ecbf29a966405604631a5aab8",
      "4fe4f7710134a61d7def357add6ac50bdbfeee5032a4c100375e207216ffe42a3bd5822b24e679f91501fff795b81521"),
     "4c1b739ed451a637b0f82642e48a5ea83925d23633c72e7385c8e9aca4175e133ed1625b7d92eb39edf509c27ff392dc"),
], ids=["quote-report", "tdx-lite"])
def test_registers_of_quotes_that_others_published(kernel_event: str, rtmr_1: str, events: tuple[str, str], rtmr_2: str) -> None:
    assert tdx.boot_register(bytes.fromhex(kernel_event)).hex() == rtmr_1
    assert tdx.start_register(*map(bytes.fromhex, events)).hex() == rtmr_2


def test_the_second_computation_replays_a_published_log() -> None:
    kernel = bytes.fromhex("a2ccae1e7d6c668ca325bb09c882d8ce44d26d714ba6f58d2e8083fe291a704646afe24a2368bca3341728d78ec80a80")
    calling, _, leaving, left = second.ACTIONS
    assert second.replay([kernel, calling, leaving, left]).hex() == (
        "775b9f6bfe99f8a31396f0d0218e67ffa796d3b96ccf961cbb0deba48c79c00f082cda1a5567c1c16305f1fc210c13c6")
    assert second.replay([bytes.fromhex(text) for text in (
        "4230f84885a6f3f305e91a1955045398bd9edd8ffd2aaf2aab8ad3ac53476c4ac82a3675ef559c4ae949a06e84119fc2",
        "b15af9286108d3d8c9f794a51409e55bad6334f5d96a1e4469f8df2d75fd69aac648d939e13daf6800e82e6c1f6628c4")]).hex() == (
        "94eaf7a7bf398ed8d888c91057ae0261802e4f3df084213a76ca7f0b5055ac9d2241de43cd58d9e8b49c503bbf25f34a")


def test_the_mrtd_that_others_published(tmp_path: Path) -> None:
    path, firmware = tmp_path / "published", second.make_published_tdvf()
    assert tdvf.measure_firmware(path, firmware).hex() == second.PUBLISHED_MRTD
    assert second.mrtd(firmware, second.PUBLISHED_SECTIONS).hex() == second.PUBLISHED_MRTD
    at = len(firmware) // 2
    assert tdvf.measure_firmware(path, firmware[:at] + b"\1" + firmware[at + 1:]).hex() != second.PUBLISHED_MRTD


@pytest.mark.parametrize(("line", "event"), [
    ("console=ttyS0 oasis.stage2.roothash=0c3e6c3235d0f04e68b3bac64e6da3766063d13d689cc3dda006e68bd6d61ce1 oasis.stage2.hash_offset=20230144",
     "cafcc332a983b2e8e8b50aec8398e82a61c36cc4b6fa3a40e18c294611306c06f70facf7ca8a348acd16c787c3751574"),
    ("foo bar", "ae062a0d46d7899081d8068d40d5035c134c77f789c7f894c4b5d92297731bbe53b41b7868edb686ba85757a9e12c5bf"),
])
def test_events_of_command_lines_that_others_published(line: str, event: str) -> None:
    found = tdx.options_digest(line)
    assert found is not None
    assert found.hex() == event


@pytest.mark.parametrize(("firmware", "initrd", "line", "options"), [
    (second.make_tdvf(), INITRD, LINE, f"initrd=initrd {LINE}"), (second.make_tdvf(second.MIDDLE), INITRD, LINE, f"{LINE} initrd=initrd"),
    (second.make_tdvf(packed=False), INITRD, LINE, f"initrd=initrd {LINE}"), (second.make_tdvf(), None, "root=/dev/dm-0 ro", "root=/dev/dm-0 ro"),
    (second.make_tdvf(), INITRD, "", "initrd=initrd "), (second.make_tdvf(second.MIDDLE), INITRD, "", " initrd=initrd"),
    (second.make_tdvf(), None, "", ""), (second.make_tdvf(), b"", LINE, LINE),
], ids=["new", "202502", "not-packed", "disk-image", "no-line", "no-line-202502", "nothing", "empty-initrd"])
def test_the_factory_and_the_second_computation_agree(launch: Launch, firmware: bytes, initrd: bytes | None, line: str, options: str) -> None:
    launch.firmware.write_bytes(firmware)
    if initrd is not None and launch.initrd is not None:
        launch.initrd.write_bytes(initrd)
    launch = replace(launch, cmdline=line, initrd=launch.initrd if initrd is not None else None)
    assert found(tdx.Machine(launch)) == second.told(firmware, launch.kernel.read_bytes(), options, initrd)


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("trailer", [b"", b"more" * 4], ids=["nothing-behind", "behind"])
def test_a_kernel_with_and_without_signature(launch: Launch, is_signed: bool, trailer: bytes) -> None:
    image = second.make_kernel(is_signed=is_signed)
    if trailer:
        end = len(image) - (second.SIGNATURE if is_signed else 0)
        image = image[:end] + trailer + image[end:]
    assert kernel_image.image_digest(launch.kernel, image) == second.kernel_event(image, is_signed=is_signed)


# (2 GiB - 160 KiB - 1 - 24 KiB) down to a page, and so for less memory.
@pytest.mark.parametrize(("memory_mib", "above_4g", "address"), [
    (4096, True, 0x7FFD1000), (2816, True, 0x7FFD1000), (2815, True, 0xAFED1000), (2048, True, 0x7FFD1000), (512, True, 0x1FFD1000),
    (2815, False, 0x7FFF9000), (4096, False, 0x7FFD1000),
])
def test_an_old_qemu_puts_the_initrd_where_memory_ends(launch: Launch, memory_mib: int, above_4g: bool, address: int) -> None:
    kernel = second.make_kernel(above_4g=above_4g)
    launch.kernel.write_bytes(kernel)
    loaded = second.loaded_by_old_qemu(kernel, address, len(INITRD))
    assert tdx.Machine(launch, keeps_kernel=False).kernel(memory_mib) == second.kernel_event(loaded)


def test_an_old_qemu_without_an_initrd_and_with_a_video_mode(launch: Launch) -> None:
    launch = replace(launch, initrd=None, cmdline="vga=0x301 quiet")
    loaded = second.loaded_by_old_qemu(launch.kernel.read_bytes(), 0, 0)
    machine = tdx.Machine(launch, keeps_kernel=False)
    assert machine.is_steady
    assert machine.kernel(1) == second.kernel_event(loaded[:0x1FA] + b"\x01\x03" + loaded[0x1FC:])
    with pytest.raises(BuildError, match="QEMU takes no vga=wide"):
        tdx.Machine(replace(launch, cmdline="vga=wide"), keeps_kernel=False).kernel(1)


def test_everything_that_is_measured_changes_its_register_and_no_other(launch: Launch, tmp_path: Path) -> None:
    base = found(tdx.Machine(launch))
    (tmp_path / "other-initrd").write_bytes(b"other")
    for changed, fields in (
            (replace(launch, cmdline="console=hvc1"), ("rtmr_2",)), (replace(launch, initrd=tmp_path / "other-initrd"), ("rtmr_2",)),
            (replace(launch, initrd=None), ("rtmr_2",)), (replace(launch, vcpus=8, vcpu_type="EPYC-Milan"), ())):
        other = found(tdx.Machine(changed))
        assert [name for name in ("mr_td", "rtmr_1", "rtmr_2") if getattr(base, name) != getattr(other, name)] == list(fields)


@pytest.mark.parametrize("name", ["tdvf", "kernel", "initrd"])
def test_a_flipped_bit_anywhere_in_an_input_changes_its_register(launch: Launch, tmp_path: Path, name: str) -> None:
    """Except where nothing is measured: variables of the firmware, checksum and signature of the kernel."""
    path, base = tmp_path / name, found(tdx.Machine(launch))
    data = path.read_bytes()
    not_measured = {"tdvf": range(second.VARIABLES), "initrd": range(0)}.get(name) or (
        *range(second.CHECKSUM_AT, second.CHECKSUM_AT + 4), *range(second.CERTIFICATES_AT, second.CERTIFICATES_AT + 4),
        *range(len(data) - second.SIGNATURE, len(data)))
    for at in (*range(0x300, len(data), 4999), len(data) - 1):
        path.write_bytes(data[:at] + bytes((data[at] ^ 4,)) + data[at + 1:])
        try:
            changed = found(tdx.Machine(launch))
        except BuildError:
            continue  # a damaged volume or table is refused
        assert (changed != base) == (name == "initrd" or at not in not_measured), hex(at)


SECTIONS = second.SECTIONS
WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it has no table of OVMF at its end"),
    "zeros": (lambda: bytes(1 << 16), "it has no table of OVMF at its end"),
    "of SEV": (make_firmware, "it has no TDX metadata"),
    "version": (lambda: second.make_tdvf(version=2), "damaged or of another version"),
    "outside": (lambda: second.make_tdvf()[-0x1000:], "its TDX metadata are outside of it"),
    "type": (lambda: second.make_tdvf(sections=[(0, 0, 0, 0x1000, 5, 0)]), "a section of type 5, which QEMU refuses"),
    "no pages": (lambda: second.make_tdvf(sections=[(0, 0, 0, 0x1001, 3, 0)]), "is not of whole pages"),
    "no size": (lambda: second.make_tdvf(sections=[(0, 0, 0, 0, 3, 0)]), "is not of whole pages"),
    "huge": (lambda: second.make_tdvf(sections=[(0, 0, 0, 1 << 40, 3, 0)]), "is not of whole pages"),
    "beyond": (lambda: second.make_tdvf(sections=[(0x27000, 0x2000, 0, 0x2000, 0, 1)]), "at 0x0 ends at byte 0x29000 of a file of 0x28000"),
    "code without variables": (lambda: second.make_tdvf()[second.VARIABLES:], "ends at byte 0x28000 of a file of 0x20000"),
    "less": (lambda: second.make_tdvf(sections=[(0, 0x1000, 0, 0x2000, 0, 1)]), "0x1000 bytes in the file and 0x2000 in memory"),
    "measured zeros": (lambda: second.make_tdvf(sections=[(0, 0, 0, 0x1000, 3, 1)]), "0x0 bytes in the file and 0x1000 in memory"),
    "none": (lambda: second.make_tdvf(sections=[]), "damaged or of another version"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
def test_wrong_firmware_is_refused_in_words(launch: Launch, make: Callable[[], bytes], words: str) -> None:
    launch.firmware.write_bytes(make())
    with pytest.raises(BuildError, match=rf"firmware .* cannot be measured: .*{words}"):
        tdx.Machine(launch).registers(4096)


@pytest.mark.parametrize("texts", [second.OLD, b"", second.NEW + second.MIDDLE], ids=["older", "no-loader", "both"])
def test_a_firmware_that_starts_kernels_in_an_unknown_way_is_refused(launch: Launch, texts: bytes) -> None:
    launch.firmware.write_bytes(second.make_tdvf(texts))
    with pytest.raises(BuildError, match="starts a kernel is unknown: it is not one of edk2-stable202502 or later"):
        tdx.Machine(launch).registers(4096)


def packed_volumes(*volumes: bytes) -> bytes:
    """In the place of the firmware's own."""
    return second.make_tdvf(b"".join(second.LZMA + b"\x18\0\1\0" + volume for volume in volumes), packed=False)


@pytest.mark.long
def test_volumes_that_unpack_to_too_much_are_refused(launch: Launch) -> None:
    bomb = lzma.compress(bytes(40 << 20), lzma.FORMAT_ALONE, preset=0)
    launch.firmware.write_bytes(packed_volumes(bomb, bomb))
    with pytest.raises(BuildError, match=r"its volumes unpack to more than 67108864 bytes"):
        tdx.Machine(launch).registers(4096)


def test_volumes_without_an_end_are_refused_before_one_is_tried(launch: Launch) -> None:
    launch.firmware.write_bytes(second.make_tdvf(second.LZMA * 63, packed=False))
    with pytest.raises(BuildError, match="it has 65 volumes that are packed; at most 64 are possible"):
        _ = tdx.Machine(launch).loader


def test_a_volume_that_asks_for_all_memory_is_not_unpacked(launch: Launch) -> None:
    volume = bytearray(lzma.compress(second.NEW, lzma.FORMAT_ALONE))
    launch.firmware.write_bytes(packed_volumes(bytes(volume)))
    assert tdx.Machine(launch).loader.initrd_first
    volume[1:5] = b"\xff" * 4
    launch.firmware.write_bytes(packed_volumes(bytes(volume)))
    with pytest.raises(BuildError, match="starts a kernel is unknown"):
        _ = tdx.Machine(launch).loader


@pytest.mark.parametrize("words", [("--tee", "tdx"), ()], ids=["tdx", "snp"])
def test_a_file_that_is_too_large_for_a_firmware_is_not_read(folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "tdvf").open("wb") as stream:
        stream.truncate(1 << 40)
    assert main(["measure", "nvidia", "--out", str(folder), "--firmware", str(folder / "tdvf"), *words]) == 2
    assert "has 1099511627776 bytes; at most 67108864 are possible" in capsys.readouterr().err


def test_parts_of_a_kernel_that_overlap_are_refused(launch: Launch) -> None:
    """Each would be digested, and there may be 65535."""
    kernel = bytearray(second.make_kernel(is_signed=False))
    kernel[0xF8 + 40 + 16:0xF8 + 40 + 24] = kernel[0xF8 + 16:0xF8 + 24] = (second.CODE_SIZE).to_bytes(4, "little") + second.HEADERS.to_bytes(4, "little")
    launch.kernel.write_bytes(kernel)
    with pytest.raises(BuildError, match="its parts are outside of it, or overlap"):
        tdx.Machine(launch).registers(4096)


@pytest.mark.parametrize(("data", "words"), [
    (b"", "is not a bzImage"), (bytes(1 << 16), "is not a bzImage"),
    (second.make_kernel()[:0x1000], "its parts are outside of it"),
    (second.make_kernel().replace(b"PE\0\0", b"NE\0\0"), "it has no such header"),
    (second.make_kernel()[:0x3C] + b"\xff\xff\xff\x7f" + second.make_kernel()[0x40:], "it is cut short"),
    (second.make_kernel()[:0x206] + b"\x05\x02" + second.make_kernel()[0x208:], "boot protocol 2.06"),
], ids=["empty", "zeros", "cut", "no-pe", "pe-outside", "old-protocol"])
def test_a_wrong_kernel_is_refused_in_words(launch: Launch, data: bytes, words: str) -> None:
    launch.kernel.write_bytes(data)
    with pytest.raises(BuildError, match=words):
        tdx.Machine(launch).registers(4096)


def test_an_old_qemu_needs_room_for_the_initrd_and_a_kernel_that_is_loaded_high(launch: Launch) -> None:
    machine = tdx.Machine(launch, keeps_kernel=False)
    with pytest.raises(BuildError, match="an initrd of 0 MiB does not fit into 1 MiB"):
        replace_size(launch, 900 << 10)
        tdx.Machine(launch, keeps_kernel=False).kernel(1)
    kernel = launch.kernel.read_bytes()
    launch.kernel.write_bytes(kernel[:0x211] + b"\0" + kernel[0x212:])
    with pytest.raises(BuildError, match="is not one that is loaded high"):
        machine.kernel(4096)


def replace_size(launch: Launch, size: int) -> None:
    assert launch.initrd is not None
    launch.initrd.write_bytes(bytes(size))


def test_a_line_that_the_firmware_would_change_is_refused(launch: Launch) -> None:
    with pytest.raises(BuildError, match="the command line is not ASCII"):
        _ = tdx.Machine(replace(launch, cmdline="console=\N{LATIN SMALL LETTER E WITH ACUTE}")).cmdline


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"firmware .*none cannot be read: No such file"):
        tdvf.read_firmware(tmp_path / "none")


# The command

@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_image(tmp_path / "images", "nvidia")
    (tmp_path / "images/nvidia/vmlinuz").write_bytes(second.make_kernel())
    (tmp_path / "tdvf").write_bytes(second.make_tdvf())
    return tmp_path


def measure(folder: Path, *words: str) -> int:
    return main(["measure", "nvidia", "--out", str(folder), "--tee", "tdx", "--firmware", str(folder / "tdvf"), "--cmdline", LINE, *words])


def test_values_of_an_image_as_trustee_compares_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(folder, "-o", str(folder / "values.json")) == 0
    told = capsys.readouterr().out
    document = json.loads((folder / "values.json").read_text())
    initrd = (folder / "images/nvidia/initrd").read_bytes()
    expected = second.told((folder / "tdvf").read_bytes(), second.make_kernel(), f"initrd=initrd {LINE}", initrd)
    values = document["reference_values"]
    assert {name: values[name] for name in ("mr_td", "rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams")} == {
        "mr_td": [expected.mr_td.hex()], "rtmr_1": [expected.rtmr_1.hex()], "rtmr_2": [expected.rtmr_2.hex()],
        "tdvfkernel": second.kernel_event(second.make_kernel()).hex(),
        "tdvfkernelparams": hashlib.sha384(f"initrd=initrd {LINE}\0".encode("utf-16-le")).hexdigest()}
    assert "xfam" in document["only_the_host_knows"] and "snp_microcode" not in document["only_the_host_knows"]
    assert told.splitlines()[:4] == ["vCPUs  memory  value", f"any    any     mr_td   {expected.mr_td.hex()}",
                                     f"any    any     rtmr_1  {expected.rtmr_1.hex()}", f"any    any     rtmr_2  {expected.rtmr_2.hex()}"]
    assert "get-reference-value --id mr_td" in told and "--as-single-value tdvfkernel " in told
    assert measure(folder, "--compare", str(folder / "values.json")) == 0
    assert measure(folder, "--compare", str(folder / "values.json"), "--cmdline", "quiet") == 1
    assert [line.partition(":")[0] for line in capsys.readouterr().err.replace("nvrc-image: ", "").splitlines()] == ["cmdline", "rtmr_2"]


def test_a_table_by_memory_for_an_old_qemu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(folder, "--qemu", "9.2", "--memory", "8192", "--memory", "2047", "--memory", "4096", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["tdx"]["rtmr_1"]) == ["2047 MiB", "from 2816 MiB"]
    assert len(set(document["reference_values"]["rtmr_1"])) == 2
    assert "tdvfkernel" not in document["reference_values"]
    (folder / "old.json").write_text(json.dumps(document))
    assert measure(folder, "--qemu", "9.2.4", "--memory", "4096", "--compare", str(folder / "old.json")) == 0
    assert measure(folder, "--compare", str(folder / "old.json")) == 1
    assert "rtmr_1 with memory any: expected None, found" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "status", "told"), [
    (("--qemu", "9.2"), 2, "give --memory, once for each size"), (("--qemu", "new"), 2, "--qemu"), (("--qemu=-1",), 2, "--qemu"), (("--qemu", "10."), 2, "--qemu"),
    (("--memory", "0"), 2, "--memory"),
    (("--memory", "99999999999"), 2, "--memory"), (("--tee", "cca"), 2, "--tee"),
])
def test_wrong_words(folder: Path, words: tuple[str, ...], status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = measure(folder, *words)
    except SystemExit as end:
        found = end.code if isinstance(end.code, int) else 1
    assert found == status
    assert told in capsys.readouterr().err


def test_values_of_the_other_kind_are_not_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "values.json").write_text(json.dumps({"version": reference.VERSION, "sev_snp": {}}))
    assert measure(folder, "--compare", str(folder / "values.json")) == 1
    assert "has no reference values" in capsys.readouterr().err
    (folder / "values.json").write_text("[" * 100_000)
    assert measure(folder, "--compare", str(folder / "values.json")) == 1
    assert "has no reference values" in capsys.readouterr().err
