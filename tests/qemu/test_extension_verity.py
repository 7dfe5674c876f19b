# SPDX-License-Identifier: Apache-2.0
"""Extension disks on a real dm-verity: the images are made by mkfs.erofs and veritysetup, not by our own factory.

Each virtual machine gets a disk and a command line; what differs between them is named in the row.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from fakes.elf import shared_object
from fakes.lab_image import lab_image
from nvrc_build.output.disk import Partition, boot_record
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.machine import Accel, Disk, Machine, escape, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

pytestmark = pytest.mark.qemu

BLOCK = 4096
ALIGN = 1 << 20
MARK = b"this library is read by ldconfig"
SALT = "5a" * 32
LATE_S = 2.0  # after the last step that a boot has before it waits for disks


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file system, its hash tree and its root hash."""

    data: bytes
    hashes: bytes
    root_hash: str

    def words(self, name: str = "gpu", **changed: str) -> str:
        items = {"root_hash": self.root_hash, "salt": SALT, "data_blocks": str(len(self.data) // BLOCK),
                 "data_block_size": str(BLOCK), "hash_block_size": str(BLOCK)} | changed
        return f"kata.extension.{name}.verity_params=" + ",".join(f"{key}={value}" for key, value in items.items())

    def with_flipped_bit(self, at: int, *, in_hashes: bool = False) -> Made:
        damaged = bytearray(self.hashes if in_hashes else self.data)
        damaged[at] ^= 0x10
        return replace(self, hashes=bytes(damaged)) if in_hashes else replace(self, data=bytes(damaged))

    def write(self, disk: Path, *, has_hashes: bool = True) -> Path:
        first = Partition(start=ALIGN, size=len(self.data))
        second = Partition(start=ALIGN + -(-len(self.data) // ALIGN) * ALIGN, size=max(len(self.hashes), BLOCK))
        with disk.open("wb") as out:
            out.write(boot_record((first, second) if has_hashes else (first,), 1))
            out.seek(first.start)
            out.write(self.data)
            out.seek(second.start)
            out.write(self.hashes)
            out.truncate(second.start + ALIGN)
        return disk


@dataclass(frozen=True, kw_only=True)
class Went:
    story: Story
    lines: tuple[str, ...]

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


class Boot(Protocol):
    def __call__(self, words: str, *disks: Disk, plug: Disk | None = None) -> Went: ...


@pytest.fixture(scope="module")
def image() -> BootFiles:
    return lab_image()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A GPU extension with firmware, a library and an ldconfig of its own."""
    folder = tmp_path_factory.mktemp("extension")
    tree = folder / "tree"
    for path, content in (
        ("lib/firmware/nvidia/550.163.01/gsp.bin", bytes(9000)),
        ("usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01", shared_object("libcuda.so.1") + MARK + bytes(3 * BLOCK)),
        ("bin/unread", bytes(range(256)) * 4096),
        ("sbin/ldconfig", Path("/sbin/ldconfig").read_bytes()),
    ):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    (tree / "usr/lib/x86_64-linux-gnu/libcuda.so.1").symlink_to("libcuda.so.550.163.01")
    (tree / "sbin/ldconfig").chmod(0o755)
    data, hashes = folder / "data", folder / "hashes"
    subprocess.run(["mkfs.erofs", "-Enoinline_data", "-T1", str(data), str(tree)], check=True, capture_output=True)
    told = subprocess.run(["veritysetup", "format", "--no-superblock", "--salt", SALT, str(data), str(hashes)],
                          check=True, capture_output=True, text=True).stdout
    found = re.search(r"Root hash:\s*([0-9a-f]{64})", told)
    assert found is not None
    return Made(data=data.read_bytes(), hashes=hashes.read_bytes(), root_hash=found[1])


@pytest.fixture
def boot(image: BootFiles, tmp_path: Path) -> Boot:
    def run(words: str, *disks: Disk, plug: Disk | None = None) -> Went:
        """`plug`: a disk that is pushed in while the init waits for it."""
        late = () if plug is None else ("-drive", f"if=none,id=late,format=raw,readonly=on,file={escape(plug.path)}")
        monitor = tmp_path / "qmp" if plug else None
        machine = Machine(kernel=image.kernel, initrd=image.initrd, disks=disks, extra=late, qmp_socket=monitor,
                          devices=("pcie-root-port,id=port1,chassis=1",) if plug else (), cmdline=f"console=ttyS0 panic=1 quiet loglevel=4 cgroup_no_v1=all lab.agent=report,poweroff {words}")
        lines: list[str] = []
        pushed: list[Disk] = []
        argv = make_argv(machine, find_qemu().program, Accel.TCG)

        def hear(story: Story, new: tuple[str, ...], seconds: float) -> None:
            lines.extend(new)
            waits_since = [step.heard_s for step in story.steps if step.line.name == "topology"]
            if plug is not None and waits_since and seconds > waits_since[0] + LATE_S and not pushed:
                push_in(tmp_path / "qmp", plug)
                pushed.append(plug)

        went = watch(argv, tmp_path / "console", Limits(total_s=90), hear)
        return Went(story=went.story, lines=(*lines, went.complaint))

    return run


def push_in(monitor: Path, disk: Disk) -> None:
    """Over QEMU's monitor, in its JSON lines."""
    plug = {"driver": "virtio-blk-pci", "drive": "late", "serial": disk.serial, "bus": "port1", "id": "late-disk"}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(monitor))
        with sock.makefile("rw") as lines:
            lines.readline()
            for order in ({"execute": "qmp_capabilities"}, {"execute": "device_add", "arguments": plug}):
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                answer = lines.readline()
                assert "return" in answer, answer


def gpu_disk(path: Path, name: str = "gpu") -> Disk:
    return Disk(path=path, serial=f"extension-{name}")


def test_a_good_image_is_verified_mounted_and_made_part_of_the_system(boot: Boot, made: Made, tmp_path: Path) -> None:
    """Beside it two others, and a disk that is none."""
    disk = made.write(tmp_path / "disk")
    went = boot(f"{made.words('coco')} {made.words()} {made.words('dev_kit')} nvrc.verity.corruption=io-error",
                gpu_disk(disk, "dev_kit"), Disk(path=disk, serial="init-data"), gpu_disk(disk, "coco"), gpu_disk(disk))
    assert went.story.ready is not None, went.lines[-20:]
    for name in ("coco", "dev_kit"):
        assert went.has(f"agent: mount /run/kata-extensions/{name} erofs /dev/mapper/extension-{name} ro,nosuid,nodev")
    assert went.has("agent: mount /run/kata-extensions/gpu erofs /dev/mapper/extension-gpu ro,nosuid,nodev")
    assert went.has("agent: mount /usr/lib/firmware/nvidia erofs /dev/mapper/extension-gpu ro,nosuid,nodev")
    assert went.has("agent: mount /etc/ld.so.cache tmpfs")
    cache = next(line for line in went.lines if "agent: ldcache" in line)
    assert int(cache.rpartition("bytes=")[2]) > 100, "the image's own cache is empty"
    assert went.has("agent: env KATA_ATTESTER_VARIANT=nvidia")
    assert not went.has("device-mapper: verity:")


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Other items on the command line, or a bit flipped in one of the partitions; and what comes of it."""

    items: tuple[tuple[str, str], ...] = ()
    flip_data: int | None = None
    flip_hashes: int | None = None
    what: str = "the data do not verify against root hash"


@pytest.mark.parametrize("case", [
    pytest.param(Wrong(items=(("root_hash", "00" * 32),)), id="root-hash"),
    pytest.param(Wrong(items=(("salt", "00" * 32),)), id="salt"),
    pytest.param(Wrong(items=(("data_block_size", "512"),)), id="other-block-size"),
    pytest.param(Wrong(flip_data=1100), id="bit-in-superblock"),
    pytest.param(Wrong(flip_hashes=5), id="bit-in-top-of-hash-tree"),
    pytest.param(Wrong(items=(("hash_block_size", "1024"),)), id="other-hash-block-size"),
    pytest.param(Wrong(items=(("data_block_size", "8192"), ("data_blocks", "10")),
                       what='dm-verity was refused: Invalid argument; the kernel says "device-mapper: table: '),
                 id="block-size-above-a-page"),
])
def test_what_does_not_fit_is_refused_with_its_code(boot: Boot, made: Made, tmp_path: Path, case: Wrong) -> None:
    damaged = made
    if case.flip_data is not None:
        damaged = damaged.with_flipped_bit(case.flip_data)
    if case.flip_hashes is not None:
        damaged = damaged.with_flipped_bit(case.flip_hashes, in_hashes=True)
    went = boot(made.words(**dict(case.items)), gpu_disk(damaged.write(tmp_path / "disk")))
    assert went.story.ready is None
    assert went.story.failure is not None, went.lines[-20:]
    assert went.story.failure.code == "E_VERITY"
    assert case.what in went.story.failure.what
    assert 'extension "gpu"' in went.story.failure.what


def test_what_is_larger_than_its_partition_is_refused_and_each_is_named(boot: Boot, made: Made, tmp_path: Path) -> None:
    """The data: more than the partition has, and more than any disk; and the hash tree, in larger blocks."""
    wrong = {"gpu": {"data_blocks": "99999999"}, "coco": {"data_blocks": "1" + "0" * 14}, "dev_kit": {"hash_block_size": "65536"}}
    disk = made.write(tmp_path / "disk")
    went = boot(" ".join(made.words(name, **items) for name, items in wrong.items()), *(gpu_disk(disk, name) for name in wrong))
    assert went.story.ready is None
    assert went.story.failure is not None, went.lines[-20:]
    assert went.story.failure.code == "E_EXTENSION_LAYOUT"
    for name, device, what in (("gpu", "vda", f"the parameters describe {99999999 * BLOCK} bytes, partition 1 has"),
                               ("coco", "vdb", f"the parameters describe {10 ** 14 * BLOCK} bytes, partition 1 has"),
                               ("dev_kit", "vdc", "the hash tree takes")):
        assert f'extension "{name}": device {device}: {what}' in went.story.failure.what


@pytest.mark.parametrize(("policy", "says"), [("panic", "Kernel panic - not syncing"), ("restart", "reboot: Restarting system")])
def test_a_bit_that_flips_where_it_is_read_later_stops_the_machine(boot: Boot, made: Made, tmp_path: Path, policy: str,
                                                                   says: str) -> None:
    disk = made.with_flipped_bit(made.data.index(MARK)).write(tmp_path / "disk")
    went = boot(f"{made.words()} nvrc.verity.corruption={policy} loglevel=6", gpu_disk(disk))
    assert went.story.ready is None
    assert went.story.failure is None
    assert went.has(says), went.lines[-20:]
    assert went.has("is corrupted")


def test_with_io_errors_the_reader_fails_and_is_told(boot: Boot, made: Made, tmp_path: Path) -> None:
    disk = made.with_flipped_bit(made.data.index(MARK)).write(tmp_path / "disk")
    went = boot(f"{made.words()} nvrc.verity.corruption=io-error", gpu_disk(disk))
    assert went.has("is corrupted")
    assert went.story.panic == ""
    assert went.story.failure is not None, went.lines[-20:]
    assert went.story.failure.code == "E_EXTENSION_LIBS"
    assert went.story.failure.what.endswith("was killed by SIGBUS"), "it maps what it reads"


def test_a_disk_that_is_pushed_in_late_is_taken_when_the_kernel_says_so(boot: Boot, made: Made, tmp_path: Path) -> None:
    disk = gpu_disk(made.write(tmp_path / "disk"), "coco")
    went = boot(f"{made.words('coco')} nvrc.timeout.extensions=60", plug=disk)
    assert went.story.ready is not None, went.lines[-20:]
    assert went.has("agent: mount /run/kata-extensions/coco erofs /dev/mapper/extension-coco ro,nosuid,nodev")
    waited = next(step.line.seconds for step in went.story.steps if step.line.name == "extensions")
    assert waited > LATE_S / 2


def test_a_missing_disk_is_waited_for_and_then_named(boot: Boot, made: Made) -> None:
    went = boot(f"{made.words()} nvrc.timeout.extensions=1")
    assert went.story.failure is not None, went.lines[-20:]
    assert went.story.failure.code == "E_EXTENSION_DEVICE"
    assert went.story.failure.what == 'extension "gpu": no disk has the serial extension-gpu'


def test_a_disk_without_parameters_ends_the_boot(boot: Boot, made: Made, tmp_path: Path) -> None:
    disk = made.write(tmp_path / "disk")
    went = boot(made.words("coco"), gpu_disk(disk, "coco"), gpu_disk(disk))
    assert went.story.failure is not None, went.lines[-20:]
    assert went.story.failure.code == "E_EXTENSION_PARAMS"
    assert went.story.failure.what == 'extension "gpu": device vdb has no verity parameters'


def test_a_disk_without_its_hash_partition_is_never_mounted(boot: Boot, made: Made, tmp_path: Path) -> None:
    disk = made.write(tmp_path / "disk", has_hashes=False)
    went = boot(f"{made.words()} nvrc.timeout.extensions=1", gpu_disk(disk))
    assert went.story.failure is not None, went.lines[-20:]
    assert went.story.failure.code == "E_EXTENSION_LAYOUT"
    assert went.story.failure.what == 'extension "gpu": device vda has no partition 2'
