# SPDX-License-Identifier: Apache-2.0
"""Kernel and initrd unpacked once: what fits is, what does not is left as it is, and nothing is done twice."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from nvrc_build.ground.cache import Cache
from nvrc_build.ground.errors import BuildError
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places, checkout
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.kit.unpacked_boot import (
    ELF,
    LZ4,
    PACKED,
    PVH_NOTE,
    ZSTD,
    Tools,
    find_payload,
    is_bootable,
    lighten,
    unpack_files,
)
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.scenario.scenario import find_scenario, read_scenario

VMLINUX = ELF + b"code" + PVH_NOTE + b"\0" * 8
SETUP_SECTORS = 3


def bzimage(payload: bytes, *, magic: bytes = b"HdrS", size: int | None = None) -> bytes:
    """A loader of three sectors and 100 bytes, then the packed kernel with its size, then what else there is."""
    head = bytearray((SETUP_SECTORS + 1) * 512 + 100)
    head[0x1F1] = SETUP_SECTORS
    head[0x202:0x206] = magic
    struct.pack_into("<II", head, 0x248, 100, (len(payload) + 4) if size is None else size)
    return bytes(head) + payload + struct.pack("<I", 123) + b"signature"


def tools(folder: Path, calls: list[str], *, unpacked: bytes = VMLINUX) -> Tools:
    """One that knows what is in the file, by its name."""
    def unpack(source: Path, target: Path) -> None:
        calls.append(target.name)
        assert source.read_bytes().startswith(PACKED)
        target.write_bytes(unpacked if target.name == "kernel" else b"070701")

    return lambda _places: (Cache(folder / "out/cache"), unpack)


def files(folder: Path, kernel: bytes, initrd: bytes) -> BootFiles:
    (folder / "vmlinuz").write_bytes(kernel)
    (folder / "initrd").write_bytes(initrd)
    return BootFiles(kernel=folder / "vmlinuz", initrd=folder / "initrd")


@pytest.mark.parametrize("initrd", [ZSTD + b"i", LZ4 + b"i"], ids=["zstd", "lz4"])
def test_both_are_unpacked_once(tmp_path: Path, initrd: bytes) -> None:
    given, calls = files(tmp_path, bzimage(ZSTD + b"k"), initrd), list[str]()
    found = unpack_files(given, Places(root=tmp_path), tools(tmp_path, calls))
    assert (found.kernel.read_bytes(), found.initrd.read_bytes()) == (VMLINUX, b"070701")
    assert unpack_files(given, Places(root=tmp_path), tools(tmp_path, calls)) == found
    assert calls == ["kernel", "initrd"]
    assert [[path.name for path in file.parent.iterdir()] for file in (found.kernel, found.initrd)] == [["kernel"], ["initrd"]]


def test_another_initrd_is_another_entry_and_the_kernel_is_the_one_that_is_there(tmp_path: Path) -> None:
    calls: list[str] = []
    first = unpack_files(files(tmp_path, bzimage(ZSTD + b"k"), ZSTD + b"i"), Places(root=tmp_path), tools(tmp_path, calls))
    other = unpack_files(files(tmp_path, bzimage(ZSTD + b"k"), ZSTD + b"j"), Places(root=tmp_path), tools(tmp_path, calls))
    assert first.kernel == other.kernel
    assert first.initrd.parent != other.initrd.parent
    assert calls == ["kernel", "initrd", "initrd"]


@pytest.mark.parametrize(("kernel", "initrd"), [
    pytest.param(b"no kernel", b"070701", id="neither"),
    pytest.param(b"", b"", id="empty"),
    pytest.param(bzimage(b"\x1f\x8bgzip"), b"\x1f\x8b", id="another-packer"),
])
def test_what_is_not_packed_like_that_is_left_alone(tmp_path: Path, kernel: bytes, initrd: bytes) -> None:
    given = files(tmp_path, kernel, initrd)
    assert unpack_files(given, Places(root=tmp_path), tools(tmp_path, [])) == given


def test_one_without_the_other(tmp_path: Path) -> None:
    given = files(tmp_path, b"no kernel", ZSTD)
    found = unpack_files(given, Places(root=tmp_path), tools(tmp_path, []))
    assert found.kernel == given.kernel
    assert found.initrd.read_bytes() == b"070701"


def test_a_kernel_that_qemu_could_not_start_is_taken_as_it_is(tmp_path: Path) -> None:
    given = files(tmp_path, bzimage(ZSTD), ZSTD)
    found = unpack_files(given, Places(root=tmp_path), tools(tmp_path, [], unpacked=ELF + b"without the note"))
    assert found.kernel == given.kernel
    assert found.initrd != given.initrd


@pytest.mark.parametrize(("kernel", "payload"), [
    pytest.param(bzimage(ZSTD + b"abc"), ZSTD + b"abc", id="found-without-its-size"),
    pytest.param(bzimage(ZSTD, magic=b"none"), b"", id="no-header"),
    pytest.param(bzimage(ZSTD, size=5000), b"", id="cut-off"),
    pytest.param(bzimage(ZSTD)[:0x24C], b"", id="nothing-behind-the-header"),
])
def test_where_the_packed_kernel_is(kernel: bytes, payload: bytes) -> None:
    assert find_payload(kernel) == payload


def test_the_note_is_what_qemu_looks_for() -> None:
    assert is_bootable(VMLINUX)
    assert not is_bootable(VMLINUX[1:])


def test_an_unpacker_that_fails_says_what_to_do(tmp_path: Path) -> None:
    def broken(_places: Places) -> tuple[Cache, object]:
        raise BuildError("no zstd", "run: ./dev setup")

    with pytest.raises(LabError, match=r"the image could not be unpacked: no zstd: run: \./dev setup"):
        unpack_files(files(tmp_path, bzimage(ZSTD), ZSTD), Places(root=tmp_path), broken)  # type: ignore[arg-type]


def test_only_emulation_of_the_labs_own_image_is_lightened(tmp_path: Path) -> None:
    given, places = files(tmp_path, b"", b""), Places(root=tmp_path)
    cpu = read_scenario(find_scenario("cpu", checkout().scenarios))
    real = read_scenario(next((checkout().scenarios / "real-driver").glob("*.yaml")))
    given.kernel.unlink()  # whoever looks at it fails
    assert lighten(given, [cpu], Accel.KVM, places) == given
    assert lighten(given, [real], Accel.TCG, places) == given
    with pytest.raises(FileNotFoundError):
        lighten(given, [cpu], Accel.TCG, places)
