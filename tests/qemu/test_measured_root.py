# SPDX-License-Identifier: Apache-2.0
"""A machine whose root is the image itself: a disk on EROFS or ext4 under dm-verity, with the parameters beside it.

The line is the one that Kata's runtime writes; who acts on it here says fakes/measured_root.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import hostile, measured_root
from fakes.measured_root import Went, make_first_stage, root_words
from nvrc_build import pipeline
from nvrc_build.output.disk import read_partitions
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.qemu.machine import Disk
from nvrc_lab.run.compose import damage_disk
from nvrc_lab.run.probing import Guest
from nvrc_lab.scenario.values import Damage

CACHE = Path(__file__).resolve().parents[2] / "out/cache"

pytestmark = pytest.mark.qemu


Build = Callable[[str], pipeline.Image]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Images that are made for a host's own kernel, with the stand-in agent in them."""
    out = tmp_path_factory.mktemp("images")
    agent = standins.build_program(standins.open_workshop(checkout()), "agent")
    return lambda name: pipeline.build(name, out=out, cache=CACHE, agent=agent)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    return make_first_stage(tmp_path_factory.mktemp("modules"), CACHE)


def boot(first_stage: Guest, folder: Path, words: str, *disks: Disk) -> Went:
    return measured_root.boot(first_stage, folder, f"lab.agent=report,poweroff {words}", disks)


@pytest.mark.parametrize(("name", "extensions"), [("kata-base", ("devkit",)), ("kata-base-ext4", ())])
def test_a_measured_root_gets_ready_and_cannot_be_written(build: Build, first_stage: Guest, tmp_path: Path, name: str,
                                                          extensions: tuple[str, ...]) -> None:
    """An extension beside it is found by its serial; the root's own disk has no such serial and is left alone."""
    fstype = "ext4" if name.endswith("ext4") else "erofs"
    image, beside = build(name), {extension: build(extension) for extension in extensions}
    words = [f"kata.extension.{one}.verity_params={made.verity.read_text(encoding='ascii').strip()}" for one, made in beside.items()]
    went = boot(first_stage, tmp_path, " ".join((root_words(image, fstype=fstype), *words)), Disk(path=image.disk, serial="image"),
                *(Disk(path=made.disk, serial=f"extension-{one}") for one, made in beside.items()))
    assert went.story.ready is not None, went.lines[-20:]
    for one in extensions:
        assert went.has(f"agent: mount /run/kata-extensions/{one} erofs /dev/mapper/extension-{one} ro,nosuid,nodev")
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
