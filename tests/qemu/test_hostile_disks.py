# SPDX-License-Identifier: Apache-2.0
"""Disks as a hostile host has them: that do not answer, or that are others each time they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fakes.built_images import IMAGES, build
from fakes.lab_image import lab_image
from fakes.nbd_disk import NbdDisk
from nvrc_build.output.disk import write_disk
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.kit.unpacked_boot import unpack_files
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

pytestmark = pytest.mark.qemu

SIZE = DATA_AT = 1 << 20
KERNEL_RUNS = "Run /init"
WITH_SCSI = "nvidia-base"
GOES_ON = "nvrc: log farewell: no runtime can ask: OverdueError"


@pytest.fixture(scope="module")
def image() -> BootFiles:
    return lab_image()


class HeardEnoughError(Exception):
    """There is a verdict, and a kernel that waits for a disk takes a minute to switch off."""


def boot(image: BootFiles, folder: Path, disk: NbdDisk, hear: Callable[[str], None], *, words: str = "",
         serial: str = "", devices: tuple[str, ...] = (), until: str = "") -> tuple[Story, list[str]]:
    """With the kernel's own lines, so that whoever answers for the disk knows how far the machine is."""
    lines: list[str] = []

    stories: list[Story] = []

    def listen(story: Story, new: tuple[str, ...], _seconds: float) -> None:
        lines.extend(new)
        stories.append(story)
        for line in new:
            hear(line)
        if story.failure is not None and (not until or any(until in line for line in new)):
            raise HeardEnoughError

    plugged = devices or (f"virtio-blk-pci,drive=hostile,serial={serial}",)
    machine = Machine(kernel=image.kernel, initrd=image.initrd,
                      extra=("-blockdev", disk.drive, *(word for device in plugged for word in ("-device", device))),
                      cmdline=f"console=ttyS0 panic=1 loglevel=7 cgroup_no_v1=all lab.agent=report,poweroff {words}")
    argv, limits = make_argv(machine, find_qemu().program, Accel.TCG), Limits(total_s=150, silence_s=150)
    with suppress(HeardEnoughError):
        watch(argv, folder / "console", limits, listen)
    return stories[-1], lines


class DyingHost:
    """Its disk has zeros for the firmware, and no answer once the kernel runs."""

    def __init__(self) -> None:
        self._is_dead = threading.Event()

    def read(self, _offset: int, size: int) -> bytes | None:
        return None if self._is_dead.is_set() else bytes(size)

    def hear(self, line: str) -> None:
        if KERNEL_RUNS in line:
            self._is_dead.set()


def test_a_disk_that_never_answers_ends_the_boot_in_words(image: BootFiles, tmp_path: Path) -> None:
    """Its driver waits for the partition table in the kernel, where no signal reaches PID 1. The firmware has its answers."""
    host = DyingHost()
    with NbdDisk(tmp_path / "nbd", SIZE, host.read) as disk:
        story, lines = boot(image, tmp_path, disk, host.hear)
    assert story.ready is None
    assert story.failure is not None, lines[-20:]
    assert (story.failure.code, story.failure.step) == ("E_INITDATA", "parameters")
    assert story.failure.what == "initdata: a disk of the driver virtio_blk does not answer within 60 s"


@pytest.mark.skipif(WITH_SCSI not in IMAGES, reason="the lab's image has no SCSI; NVRC_BUILT_IMAGES=1 builds one that has")
def test_a_scsi_disk_that_never_answers_does_not_keep_the_machine_from_its_end(tmp_path: Path) -> None:
    """Until it is found the kernel finishes no module's loading, that of the line to the runtime among them."""
    (tmp_path / "built").mkdir()
    image = unpack_files(build(WITH_SCSI, tmp_path / "built"), checkout())
    host = DyingHost()
    with NbdDisk(tmp_path / "nbd", SIZE, host.read) as disk:
        story, lines = boot(image, tmp_path, disk, host.hear, words="loglevel=8", until=GOES_ON,
                            devices=("virtio-scsi-pci,id=scsi", "scsi-hd,drive=hostile,bus=scsi.0"))
    assert story.failure is not None, lines[-20:]
    assert (story.failure.code, story.failure.step) == ("E_INITDATA", "parameters")
    assert story.failure.what == "initdata: a disk of the driver sd_mod does not answer within 60 s"
    assert any(GOES_ON in line for line in lines), lines[-20:]


def test_an_extension_that_does_not_answer_once_it_is_found_ends_the_boot_in_words(image: BootFiles, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(range(256)) * 64)
    verity = write_disk(tmp_path / "data", tmp_path / "disk")
    content = (tmp_path / "disk").read_bytes()
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes | None:
        """Once for who looks what is on the partition, and never for dm-verity."""
        asked.append(offset)
        return content[offset:offset + size] if asked.count(DATA_AT) < 2 else None

    with NbdDisk(tmp_path / "nbd", len(content), read) as disk:
        story, lines = boot(image, tmp_path, disk, lambda _line: None, serial="extension-coco",
                            words=f"kata.extension.coco.verity_params={verity.parameters()}")
    assert story.failure is not None, lines[-20:]
    assert (story.failure.code, story.failure.step) == ("E_EXTENSION_DEVICE", "extensions")
    assert story.failure.what == 'extension "coco": its disk does not answer within 60 s'
