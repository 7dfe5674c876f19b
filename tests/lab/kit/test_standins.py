# SPDX-License-Identifier: Apache-2.0
"""The build of the lab's own C: what it is made of, when it is made anew, and what a mistake says. Compiles nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nvrc_build.ground.cache import Cache
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.standins import PROGRAMS, Program, Workshop, build_modules, build_program


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A copy of the sources, and a root in which nothing can be compiled."""
    for folder in ("qemu-tests/standins", "qemu-tests/kernel"):
        shutil.copytree(checkout().root / folder, tmp_path / folder)
    (tmp_path / "root").mkdir()
    return Workshop(checkout=tmp_path, cache=Cache(tmp_path / "cache"), root=tmp_path / "root")


def fake_result(shop: Workshop, stage: str, key: str, name: str) -> Path:
    def write(out: Path) -> None:
        (out / name).write_bytes(b"compiled")

    return shop.cache.get(stage, key, write) / name


def program_key(shop: Workshop, name: str) -> str:
    folder = shop.programs
    sources = tuple(sorted({folder / f"{name}.c", *folder.glob(f"{name}_*.c"), folder / "common.c"}))
    return shop.key((*sources, *sorted(folder.glob("*.h"))))


@pytest.mark.parametrize("row", PROGRAMS, ids=[row.path for row in PROGRAMS])
def test_every_program_has_a_source_and_an_absolute_path_of_its_own(row: Program) -> None:
    assert (checkout().root / "qemu-tests/standins" / f"{row.source}.c").is_file()
    assert row.path.startswith("/")
    assert [other.path for other in PROGRAMS].count(row.path) == 1


def test_a_name_of_the_imitated_programs_is_known_to_their_source() -> None:
    text = (checkout().root / "qemu-tests/standins/nvidia.c").read_text(encoding="utf-8")
    for row in PROGRAMS:
        if row.source == "nvidia":
            assert f'"{row.path.rpartition("/")[2]}"' in text


def test_a_finished_program_is_not_compiled_again(shop: Workshop) -> None:
    made = fake_result(shop, "standin-prober", program_key(shop, "prober"), "program")
    assert build_program(shop, "prober") == made


@pytest.mark.long
@pytest.mark.parametrize("changed", ["prober.c", "common.c", "common.h"])
def test_a_change_of_any_source_compiles_anew(shop: Workshop, changed: str) -> None:
    fake_result(shop, "standin-prober", program_key(shop, "prober"), "program")
    with (shop.programs / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(LabError, match=r"compiling .* failed"):
        build_program(shop, "prober")


def test_modules_of_another_driver_version_are_other_modules(shop: Workshop) -> None:
    with pytest.raises(LabError, match="kernel headers"):
        build_modules(shop, "580.1")


def test_an_unknown_program_names_those_there_are(shop: Workshop) -> None:
    with pytest.raises(LabError, match="no stand-in frobnicator") as caught:
        build_program(shop, "frobnicator")
    assert "prober" in caught.value.hint
