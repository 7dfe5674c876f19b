# SPDX-License-Identifier: Apache-2.0
"""A host, or a pod's annotation, that gives the machine less memory than its initrd takes once it is unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from nvrc.vocabulary.paths import LAST
from nvrc_build.after.contents import read_tree
from nvrc_build.job import EPOCH, open_supply
from nvrc_build.supply import supply
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Origin
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

pytestmark = pytest.mark.qemu

CUT = "Initramfs unpacking failed: write error"
# Comes behind all that a boot needs, and is what a confidential image must not start without.
LARGE, LARGE_BYTES = "/usr/local/bin/attestation-agent", 96 << 20
# The first has no room for the large file in its half; the second has.
LITTLE_MIB, ENOUGH_MIB = 320, 640


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    lab, folder = lab_image(), tmp_path_factory.mktemp("image")
    (folder / "work").mkdir()
    tree = read_tree(lab.initrd, folder / "work", "lab", tools=supply.root(open_supply(cache=checkout().cache), "tools"))
    tree.add_file(LARGE, bytes(LARGE_BYTES), Origin(slice="test"), 0o755)
    with (folder / "initrd").open("wb") as out:
        out.writelines(write_cpio(tree, EPOCH))
    return BootFiles(kernel=lab.kernel, initrd=folder / "initrd")


def boot(image: BootFiles, folder: Path, memory_mib: int) -> tuple[Story, list[str]]:
    lines: list[str] = []
    machine = Machine(kernel=image.kernel, initrd=image.initrd, memory_mib=memory_mib,
                      cmdline="panic=1 loglevel=7 cgroup_no_v1=all lab.agent=poweroff")
    went = watch(make_argv(machine, find_qemu().program, Accel.TCG), folder / "console", Limits(total_s=120),
                 lambda _story, new, _seconds: lines.extend(new))
    return went.story, lines


def test_a_machine_that_has_not_unpacked_all_of_its_image_does_not_start_it(image: BootFiles, tmp_path: Path) -> None:
    story, lines = boot(image, tmp_path, LITTLE_MIB)
    assert any(CUT in line for line in lines), lines[-20:]
    assert story.ready is None
    assert story.failure is not None, lines[-20:]
    assert (story.failure.code, story.failure.what) == (
        "E_INITRD", f"cannot read {LAST}, which the kernel unpacks last: errno 2")
    assert "give the VM more memory" in story.failure.hint
    assert not story.panic


def test_the_same_image_starts_with_more_memory(image: BootFiles, tmp_path: Path) -> None:
    story, lines = boot(image, tmp_path, ENOUGH_MIB)
    assert not any(CUT in line for line in lines)
    assert story.ready is not None, lines[-20:]
