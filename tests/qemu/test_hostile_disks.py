# SPDX-License-Identifier: Apache-2.0
"""Disks as a hostile host has them: that do not answer, or that are others each time they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from fakes.nbd_disk import NbdDisk
from nvrc_build.output.disk import write_disk
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

pytestmark = pytest.mark.qemu

SIZE = DATA_AT = 1 << 20
KERNEL_RUNS = "Run /init"


@pytest.fixture(scope="module")
def image() -> BootFiles:
    return lab_image()


class HeardEnoughError(Exception):
    """There is a verdict, and a kernel that waits for a disk takes a minute to switch off."""


def boot(image: BootFiles, folder: Path, disk: NbdDisk, hear: Callable[[str], None], *, words: str = "",
         serial: str = "") -> tuple[Story, list[str]]:
    """With the kernel's own lines, so that whoever answers for the disk knows how far the machine is."""
    lines: list[str] = []

    stories: list[Story] = []

    def listen(story: Story, new: tuple[str, ...], _seconds: float) -> None:
        lines.extend(new)
        stories.append(story)
        for line in new:
            hear(line)
        if story.failure is not None:
            raise HeardEnoughError

    machine = Machine(kernel=image.kernel, initrd=image.initrd,
                      extra=("-blockdev", disk.drive, "-device", f"virtio-blk-pci,drive=hostile,serial={serial}"),
                      cmdline=f"console=ttyS0 panic=1 loglevel=7 cgroup_no_v1=all lab.agent=report,poweroff {words}")
    argv, limits = make_argv(machine, find_qemu().program, Accel.TCG), Limits(total_s=150, silence_s=150)
    with suppress(HeardEnoughError):
        watch(argv, folder / "console", limits, listen)
    return stories[-1], lines


def test_a_disk_that_never_answers_ends_the_boot_in_words(image: BootFiles, tmp_path: Path) -> None:
    """Its driver waits for the partition table in the kernel, where no signal reaches PID 1. The firmware has its answers."""
    is_dead = threading.Event()

    def read(_offset: int, size: int) -> bytes | None:
        return None if is_dead.is_set() else bytes(size)

    def hear(line: str) -> None:
        if KERNEL_RUNS in line:
            is_dead.set()

    with NbdDisk(tmp_path / "nbd", SIZE, read) as disk:
        story, lines = boot(image, tmp_path, disk, hear)
    assert story.ready is None
    assert story.failure is not None, lines[-20:]
    assert (story.failure.code, story.failure.step) == ("E_INITDATA", "parameters")
    assert story.failure.what == "initdata: a disk of the driver virtio_blk does not answer within 60 s"


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
