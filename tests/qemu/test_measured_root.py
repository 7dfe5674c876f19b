# SPDX-License-Identifier: Apache-2.0
"""A machine whose root is the image itself: a disk on EROFS or ext4 under dm-verity, with the parameters beside it.

The line is the one that Kata's runtime writes. Kata's kernel acts on it by itself (CONFIG_DM_INIT); a distribution's kernel
has device-mapper as a module, so a first program does the same from the same line (standins/rootstage.c) and is gone
when the init starts. Nothing of the initramfs is in the root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import hostile
from nvrc_build import pipeline
from nvrc_build.output.disk import read_partitions
from nvrc_build.output.verity import parse_parameters
from nvrc_build.products import kernel as kernels
from nvrc_build.products.products import kernel_root
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.qemu.machine import Accel, Disk, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import damage_disk
from nvrc_lab.run.probing import Guest, write_initrd
from nvrc_lab.scenario.values import Damage
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

CACHE = Path(__file__).resolve().parents[2] / "out/cache"
# What a guest kernel for measured roots has built in.
MODULES = ("virtio_blk", "dm-verity", "erofs", "ext4")

pytestmark = pytest.mark.qemu


@dataclass(frozen=True)
class Went:
    story: Story
    lines: tuple[str, ...]

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


Build = Callable[[str], pipeline.Image]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Images that are made for a host's own kernel, with the stand-in agent in them."""
    out = tmp_path_factory.mktemp("images")
    agent = standins.build_program(standins.open_workshop(checkout()), "agent")
    return lambda name: pipeline.build(name, out=out, cache=CACHE, agent=agent)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """The kernel of the lab, and what loads its modules and makes the root."""
    shop, folder = standins.open_workshop(checkout()), tmp_path_factory.mktemp("modules")
    root = kernel_root(pipeline.make_inputs(pipeline.open_job("lab", cache=CACHE)))
    chosen = {module.path: module for module in kernels.select_modules(root, MODULES)}
    programs = {"/lab/init": standins.build_program(shop, "labinit"),
                "/lab/rootstage": standins.build_program(shop, "rootstage")}
    order: list[str] = []
    for row in kernels.modules_dep(tuple(chosen.values())).decode().splitlines():
        path, _, needs = row.partition(":")
        order += [each for each in (*reversed(needs.split()), path) if each not in order]
    for path in order:
        (folder / Path(path).name).write_bytes(chosen[path].data)
        programs[f"/lab/{Path(path).name}"] = folder / Path(path).name
    texts = {"/lab/target": "/lab/rootstage\n", "/lab/modules": "".join(f"/lab/{Path(path).name}\n" for path in order)}
    return Guest(kernel=kernels.image_path(root), programs=programs, texts=texts)


def boot(first_stage: Guest, folder: Path, words: str, *disks: Disk) -> Went:
    write_initrd(first_stage, folder / "initrd")
    machine = Machine(kernel=first_stage.kernel, initrd=folder / "initrd", disks=disks, cmdline=(
        "console=ttyS0 quiet loglevel=4 panic=1 reboot=k mitigations=off cgroup_no_v1=all rdinit=/lab/init "
        f"lab.agent=report,poweroff {words}"))
    lines: list[str] = []
    went = watch(("nice", *make_argv(machine, find_qemu().program, Accel.TCG)), folder / "console", Limits(total_s=120),
                 lambda _story, new, _seconds: lines.extend(new))
    return Went(story=went.story, lines=(*lines, went.complaint))


def root_words(image: pipeline.Image, parameters: str = "", fstype: str = "erofs") -> str:
    return parse_parameters(parameters or image.verity.read_text(encoding="ascii")).root_parameters(fstype=fstype)


@pytest.mark.parametrize(("name", "fstype"), [("kata-base", "erofs"), ("kata-base-ext4", "ext4")])
def test_a_measured_root_gets_ready_and_cannot_be_written(build: Build, first_stage: Guest, tmp_path: Path, name: str,
                                                          fstype: str) -> None:
    image = build(name)
    went = boot(first_stage, tmp_path, root_words(image, fstype=fstype), Disk(path=image.disk, serial="image"))
    assert went.story.ready is not None, went.lines[-20:]
    assert went.has(f"agent: mount / {fstype} /dev/dm-0 ro,"), [line for line in went.lines if "agent: mount" in line]
    assert not went.has("device-mapper: verity:")


@pytest.fixture(scope="module")
def hostile_disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return Disk(path=hostile.make_object(tmp_path_factory.mktemp("hostile")), serial="hostile")


def test_no_word_of_the_line_makes_pid_1_load_a_disk_of_the_host(build: Build, first_stage: Guest, hostile_disk: Disk,
                                                                 tmp_path: Path) -> None:
    """/dev is there before the init is, with every disk; words that the kernel does not know are its environment."""
    image = build("kata-base")
    words = f"{root_words(image)} {hostile.loading_words('/dev/vdb')} {hostile.other_words('/dev/vdb')}"
    went = boot(first_stage, tmp_path, words, Disk(path=image.disk, serial="image"), hostile_disk)
    assert not went.has(hostile.MARK)
    assert not went.has("ERROR: ld.so")
    assert went.story.ready is not None, went.lines[-20:]
    assert went.story.end is not None


def test_the_frozen_init_as_first_program_would_load_that_disk(build: Build, first_stage: Guest, hostile_disk: Disk,
                                                               tmp_path: Path) -> None:
    image = build("kata-base")
    words = f"{root_words(image)} {hostile.loading_words('/dev/vdb')} lab.first={hostile.FROZEN}"
    went = boot(first_stage, tmp_path, words, Disk(path=image.disk, serial="image"), hostile_disk)
    assert [said for said in hostile.SAYS if not went.has(said)] == [], went.lines[-20:]


def test_an_extension_is_found_by_its_serial_beside_a_measured_root(build: Build, first_stage: Guest,
                                                                   tmp_path: Path) -> None:
    """The root's own disk has no such serial and is left alone."""
    image, devkit = build("kata-base"), build("devkit")
    words = f"kata.extension.devkit.verity_params={devkit.verity.read_text(encoding='ascii').strip()}"
    went = boot(first_stage, tmp_path, f"{root_words(image)} {words}", Disk(path=image.disk, serial="image"),
                Disk(path=devkit.disk, serial="extension-devkit"))
    assert went.story.ready is not None, went.lines[-20:]
    assert went.has("agent: mount /run/kata-extensions/devkit erofs /dev/mapper/extension-devkit ro,nosuid,nodev")


@pytest.mark.parametrize(("damage", "says"), [
    (Damage.FLIPPED_BIT, "rootstage: FATAL mount /dev/dm-0"),
    (Damage.WRONG_HASH, "rootstage: FATAL mount /dev/dm-0"),
    (Damage.FLIPPED_LATER, "rootstage: FATAL start /sbin/init: Input/output error"),
], ids=lambda value: value.value if isinstance(value, Damage) else "")
def test_a_root_that_does_not_verify_never_gets_ready(build: Build, first_stage: Guest, tmp_path: Path, damage: Damage,
                                                      says: str) -> None:
    image = build("kata-base")
    parameters = damage_disk(image.disk, image.verity.read_text(encoding="ascii").strip(), damage, tmp_path / "disk")
    went = boot(first_stage, tmp_path, root_words(image, parameters), Disk(path=tmp_path / "disk", serial="image"))
    assert went.story.ready is None
    assert went.has(says), went.lines[-20:]
    assert went.has("device-mapper: verity:")


def test_a_hash_tree_that_was_changed_is_refused(build: Build, first_stage: Guest, tmp_path: Path) -> None:
    image = build("kata-base")
    damaged = bytearray(image.disk.read_bytes())
    damaged[read_partitions(image.disk)[1].start + 5] ^= 0x10
    (tmp_path / "disk").write_bytes(damaged)
    went = boot(first_stage, tmp_path, root_words(image), Disk(path=tmp_path / "disk", serial="image"))
    assert went.story.ready is None
    assert went.has("rootstage: FATAL mount /dev/dm-0")
    assert went.has("metadata block")
