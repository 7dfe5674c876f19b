# SPDX-License-Identifier: Apache-2.0
"""Disks against parameters: every row of the table of what is there and what is named, and hostile words in sysfs."""

from __future__ import annotations

import io
import os
from errno import EIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.device_mapper import ExtensionGuest, extension_guest, params
from fakes.examples import times
from nvrc.extensions.disks import (
    BLOCK_DEVICE,
    SCSI_HOST,
    Disk,
    Pair,
    Partition,
    absent,
    disk_names,
    find_disks,
    has_controller,
    hash_bytes,
    reconcile,
)
from nvrc.params.extension import Extension
from nvrc.vocabulary.errors import NvrcError
from nvrc_build.output.verity import BLOCK, hash_tree

GPU, COCO = Extension("gpu", params()), Extension("coco", params())
DATA, HASHES = Partition("252:1", 1 << 20), Partition("252:2", 1 << 20)


@pytest.fixture
def guest(tmp_path: Path) -> ExtensionGuest:
    return extension_guest(str(tmp_path))


def disk(name: str = "gpu", block: str = "vda", data: Partition | None = DATA, hashes: Partition | None = HASHES) -> Disk:
    return Disk(name, block, data, hashes)


def test_disks_are_known_by_their_serial(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.add_disk("vdb", "init-data", 1)
    guest.add_disk("vdc", "extension-coco", 1)
    guest.put("/sys/block/loop0/size", "0\n")
    assert find_disks(guest) == (
        Disk("gpu", "vda", Partition("252:1", 1 << 20), Partition("252:2", 1 << 20)),
        Disk("coco", "vdc", Partition("252:33", 1 << 20), None))


def test_a_machine_without_disks_has_none(guest: ExtensionGuest) -> None:
    assert find_disks(guest) == ()


@pytest.mark.parametrize(("disks", "wanted", "code", "what"), [
    ((disk(),), (GPU,), "", ""),
    ((), (), "", ""),
    ((disk(), disk("coco", "vdb")), (COCO, GPU), "", ""),
    ((disk(),), (), "E_EXTENSION_PARAMS", 'extension "gpu": device vda has no verity parameters'),
    ((disk(), disk("coco", "vdb")), (GPU,), "E_EXTENSION_PARAMS", 'extension "coco": device vdb has no verity parameters'),
    ((disk(hashes=None),), (), "E_EXTENSION_PARAMS", 'extension "gpu": device vda has no verity parameters'),
    ((disk(hashes=None),), (GPU,), "E_EXTENSION_LAYOUT", 'extension "gpu": device vda has no partition 2'),
    ((disk(data=None),), (GPU,), "E_EXTENSION_LAYOUT", 'extension "gpu": device vda has no partition 1'),
    ((disk(data=None, hashes=None),), (GPU,), "E_EXTENSION_LAYOUT",
     'extension "gpu": device vda has no partition 1 and no partition 2'),
    ((), (GPU, COCO), "E_EXTENSION_DEVICE", 'extension "gpu": no disk has the serial extension-gpu; '
     'extension "coco": no disk has the serial extension-coco'),
    ((disk(), disk(block="vdb")), (GPU,), "E_EXTENSION_DEVICE", 'extension "gpu": disks vda, vdb all have its serial'),
    ((disk(data=Partition("252:1", 200 * 4096 - 512)),), (GPU,), "E_EXTENSION_LAYOUT",
     'extension "gpu": device vda: the parameters describe 819200 bytes, partition 1 has 818688'),
    ((disk(data=Partition("252:1", 200 * 4096)),), (GPU,), "", ""),
    ((disk(hashes=Partition("252:2", 3 * 4096)),), (GPU,), "", ""),
    ((disk(hashes=Partition("252:2", 3 * 4096 - 512)),), (GPU,), "E_EXTENSION_LAYOUT",
     'extension "gpu": device vda: the hash tree takes 12288 bytes, partition 2 has 11776'),
    ((disk(),), (Extension("gpu", params(data_blocks=1 << 48)),), "E_EXTENSION_LAYOUT",
     f'extension "gpu": device vda: the parameters describe {1 << 60} bytes, partition 1 has 1048576'),
])
def test_one_to_one_or_not_at_all(disks: tuple[Disk, ...], wanted: tuple[Extension, ...], code: str, what: str) -> None:
    if not code:
        assert [pair.extension for pair in reconcile(disks, wanted)] == list(wanted)
        return
    with pytest.raises(NvrcError) as caught:
        reconcile(disks, wanted)
    assert (caught.value.code, caught.value.what) == (code, what)


def test_a_pair_has_the_partitions_of_its_own_disk() -> None:
    other = Partition("252:17", 1 << 20)
    assert reconcile((disk("coco", "vdb", data=other), disk()), (GPU, COCO)) == (
        Pair(GPU, DATA, HASHES), Pair(COCO, other, HASHES))


def test_what_is_absent_shrinks_with_every_part_that_comes() -> None:
    assert absent((), (GPU,)) == ("gpu: disk", "gpu: partition 1", "gpu: partition 2")
    assert absent((disk("coco", hashes=None),), (GPU, COCO))[3:] == ("coco: partition 2",)
    assert absent((disk(data=None, hashes=None),), (GPU,)) == ("gpu: partition 1", "gpu: partition 2")
    assert absent((disk(hashes=None), disk("coco")), (GPU,)) == ("gpu: partition 2",)
    assert absent((disk(),), (GPU,)) == ()


@pytest.mark.long
@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1])
def test_the_hash_tree_is_as_large_as_the_one_that_is_built(blocks: int) -> None:
    _, tree = hash_tree(io.BytesIO(bytes(BLOCK) * blocks), "5a")
    assert hash_bytes(params(data_blocks=blocks)) == len(tree)


@pytest.mark.parametrize(("device", "disks", "scsi"), [
    ("0x0002\n", True, False), ("0x0008\n", False, True), ("0x0001\n", False, False), ("0x0013\n", False, False),
    (None, True, True), ("", True, True),
], ids=["disk", "SCSI", "network", "vsock", "one that just went away", "one that does not say"])
def test_a_controller_may_have_a_disk_that_no_driver_has_shown_yet(guest: ExtensionGuest, device: str | None, disks: bool,
                                                                  scsi: bool) -> None:
    guest.put("/sys/bus/virtio/devices/virtio0/device", "0x0003\n")
    guest.put(f"/sys/bus/virtio/devices/virtio1/{'gone' if device is None else 'device'}", device or "")
    assert (has_controller(guest, BLOCK_DEVICE), has_controller(guest, SCSI_HOST)) == (disks, scsi)
    assert has_controller(guest, BLOCK_DEVICE, SCSI_HOST) == (disks or scsi)


def test_a_disk_that_looks_like_another_function_is_one(guest: ExtensionGuest) -> None:
    """A transitional device of PCI: the kernel takes its kind from the subsystem, whatever its own number says."""
    for name, value in (("vendor", "0x1af4"), ("device", "0x1005"), ("subsystem_device", "0x0002")):
        guest.put(f"/sys/bus/pci/devices/0000:00:01.0/{name}", f"{value}\n")
    guest.put("/sys/bus/virtio/devices/virtio0/device", "0x0002\n")
    assert has_controller(guest, BLOCK_DEVICE)


def test_a_kernel_without_virtio_has_no_controller(guest: ExtensionGuest) -> None:
    guest.put("/sys/bus/pci/devices/0000:00:01.0/vendor", "0x1af4\n")
    assert not has_controller(guest, BLOCK_DEVICE)


def test_disks_of_two_kinds_of_driver_are_looked_at(guest: ExtensionGuest) -> None:
    for name in ("vda", "sdb", "loop0", "ram0"):
        guest.put(f"/sys/block/{name}/size", "0\n")
    assert disk_names(guest) == ("sdb", "vda")


def test_what_is_read_of_a_disk_is_bounded(guest: ExtensionGuest) -> None:
    """A serial has 20 bytes, and any other attribute is a line."""
    class Recording(ExtensionGuest):
        def read(self, path: str, limit: int = 1 << 20) -> bytes:
            limits.setdefault(path.rpartition("/")[2], limit)
            return super().read(path, limit)

    limits: dict[str, int] = {}
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.put("/sys/bus/virtio/devices/virtio0/device", "0x0002\n")
    recording = Recording(guest.root)
    assert has_controller(recording, BLOCK_DEVICE) and len(find_disks(recording)) == 1
    assert limits == {"device": 16, "serial": 256, "partition": 64, "size": 64, "dev": 64}


# hostile sysfs

def test_a_strange_serial_is_quoted_as_far_as_a_line_goes(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-" + "x" * 90, 1, 2)
    with pytest.raises(NvrcError) as caught:
        find_disks(guest)
    assert caught.value.what.startswith(f"device vda: its serial b'extension-{'x' * 30}' names no extension: ")


def test_strange_numbers_are_quoted_as_far_as_a_line_goes(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    for name in ("partition", "size", "dev"):
        guest.put(f"/sys/block/vda/vda1/{name}", name[0] * 60)
    with pytest.raises(NvrcError) as caught:
        find_disks(guest)
    assert caught.value.what == (f"/sys/block/vda/vda1: partition '{'p' * 20}', size '{'s' * 20}' and dev '{'d' * 20}' "
                                 "are not numbers")


@pytest.mark.parametrize(("size", "bytes_"), [("0", 0), ("9" * 19, (10 ** 19 - 1) * 512)])
def test_the_smallest_and_the_largest_partition_that_sysfs_can_show(guest: ExtensionGuest, size: str, bytes_: int) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.put("/sys/block/vda/vda1/size", f"{size}\n")
    data = find_disks(guest)[0].data
    assert data is not None and data.size_bytes == bytes_

@pytest.mark.parametrize("serial", ["extension-", "extension-..", "extension-a/b", "extension-" + "x" * 11, "extension-a b",
                                    b"extension-\xff", b"extension-gpu\0x", "extension-gpu\nextension-coco"])
def test_a_serial_that_names_nothing_is_refused(guest: ExtensionGuest, serial: str | bytes) -> None:
    guest.add_disk("vda", serial, 1, 2)
    with pytest.raises(NvrcError, match=r"device vda: its serial .* names no extension") as caught:
        find_disks(guest)
    assert caught.value.code == "E_EXTENSION_DEVICE"


@pytest.mark.parametrize(("attribute", "value"), [
    ("size", "-1"), ("size", "x"), ("size", "1" + "0" * 19), ("size", "9" * 40), ("size", "²"), ("dev", "252"), ("dev", "252:1 verity"), ("dev", "a:b"),
    ("dev", ":"), ("partition", "one"), ("partition", ""),
])
def test_a_partition_that_is_no_number_is_refused(guest: ExtensionGuest, attribute: str, value: str) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.put(f"/sys/block/vda/vda1/{attribute}", f"{value}\n")
    with pytest.raises(NvrcError, match=r"vda1: .* are not numbers") as caught:
        find_disks(guest)
    assert caught.value.code == "E_EXTENSION_LAYOUT"


def test_two_partitions_of_one_number_are_refused(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.put("/sys/block/vda/vda2/partition", "1\n")
    with pytest.raises(NvrcError, match="device vda has two partitions 1"):
        find_disks(guest)


@pytest.mark.parametrize("there", ["", "size", "dev"])
def test_a_partition_that_is_only_half_there_is_not_there_yet(guest: ExtensionGuest, there: str) -> None:
    guest.add_disk("vda", "extension-gpu", 2)
    guest.put("/sys/block/vda/vda1/partition", "1\n")
    if there:
        guest.put(f"/sys/block/vda/vda1/{there}", {"size": "8", "dev": "252:1"}[there])
    found = find_disks(guest)[0]
    assert (found.data, found.hashes) == (None, Partition("252:2", 1 << 20))


@pytest.mark.parametrize(("path", "code"), [
    ("/sys/block/vda/serial", "E_EXTENSION_DEVICE"),
    ("/sys/block/vda/vda1/size", "E_EXTENSION_LAYOUT"),
])
def test_what_cannot_be_read_is_an_error_not_an_absence(guest: ExtensionGuest, path: str, code: str) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.fail[f"read {path}"] = OSError(EIO, "Input/output error")
    with pytest.raises(NvrcError, match="Input/output error") as caught:
        find_disks(guest)
    assert caught.value.code == code


def test_a_disk_that_does_not_tell_its_serial_is_named(guest: ExtensionGuest) -> None:
    """The kernel asks the disk for it at each reading, where no signal reaches PID 1; here it is a FIFO that nobody writes to."""
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.put("/sys/block/vdb/size", "8\n")
    serial = guest.real_path("/sys/block/vdb/serial")
    os.mkfifo(serial)
    with pytest.raises(NvrcError, match=r"device vdb does not tell its serial within 0\.2 s") as caught:
        find_disks(guest, answer_s=0.2)
    os.close(os.open(serial, os.O_RDWR))  # what was left behind ends
    assert caught.value.code == "E_EXTENSION_DEVICE"


def test_folders_that_cannot_be_listed(guest: ExtensionGuest) -> None:
    class Failing(ExtensionGuest):
        broken = "/sys/block"

        def list_dir(self, path: str) -> tuple[str, ...]:
            if path == self.broken:
                raise OSError(EIO, "Input/output error")
            return super().list_dir(path)

    guest.add_disk("vda", "extension-gpu", 1, 2)
    failing = Failing(guest.root)
    with pytest.raises(NvrcError, match="/sys/block: Input/output error"):
        find_disks(failing)
    failing.broken = "/sys/block/vda"  # it went away between two looks
    assert find_disks(failing) == (Disk("gpu", "vda", None, None),)


@pytest.mark.long
@given(st.dictionaries(st.sampled_from(["serial", "vda1/partition", "vda1/size", "vda1/dev", "vda2/partition"]),
                       st.binary(max_size=40)))
@settings(max_examples=times(5))
def test_any_sysfs_is_disks_or_an_error_with_a_code(files: dict[str, bytes]) -> None:
    class Reader:
        def read(self, path: str, limit: int = 0) -> bytes:
            name = path.removeprefix("/sys/block/vda/")
            if name not in files:
                raise FileNotFoundError
            return (b"extension-" if name == "serial" else b"") + files[name]

        def exists(self, path: str) -> bool:
            return path.removeprefix("/sys/block/vda/") in files

        def list_dir(self, path: str) -> tuple[str, ...]:
            return ("vda",) if path == "/sys/block" else ("vda1", "vda2", "queue")

    try:
        found = find_disks(Reader())
        reconcile(found, (GPU,))
    except NvrcError as err:
        assert err.code.startswith("E_EXTENSION_")
