# SPDX-License-Identifier: Apache-2.0
"""Upgrade and rollback of docs/deploy.md: its commands, run, leave what its next steps name."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.kata_images import IMAGES, make_image
from nvrc_build.cli import main
from nvrc_build.kata.classes import find_class
from nvrc_build.kata.deploy import class_folder

PAGE = (Path(__file__).resolve().parents[3] / "docs/deploy.md").read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the page's commands ran, one after the other."""
    for name in IMAGES:
        make_image(tmp_path / "out/images", name)
    lines = re.findall(r"^ *nvrc-image (kata-config .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 4
    with contextlib.chdir(tmp_path):
        assert [main([*shlex.split(line), "--out", "out"]) for line in lines] == [0] * 4
    return tmp_path


def runtimes(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load((folder / "values.yaml").read_text())["customRuntimes"]["runtimes"]
    return found


def test_files_that_later_steps_name_are_there(desk: Path) -> None:
    named = re.findall(r"\bdeploy(?:-\w+)?/[\w./-]*\w|config\.d-2/[\w.-]+", PAGE)
    assert len(named) > 6
    assert [name for name in named if not (desk / name).is_file()] == []


def test_the_new_image_lies_beside_the_old_and_both_classes_stand(desk: Path) -> None:
    old, new = (runtimes(desk / name) for name in ("deploy", "deploy-next"))
    assert not old.keys() & new.keys()
    assert re.findall(r"customRuntimes\.runtimes\.([\w-]+)=null", PAGE) == list(new)
    files = [{qemu["kernel"], qemu["initrd"]} for (row,) in (old.values(), new.values())
             for qemu in (tomllib.loads(row["dropIn"])["hypervisor"]["qemu"],)]
    assert not files[0] & files[1]


def test_the_class_that_pods_name_changes_its_files_and_nothing_else(desk: Path) -> None:
    old, new = (runtimes(desk / name) for name in ("deploy", "deploy-2"))
    assert old.keys() == new.keys()
    assert old != new
    moved = (desk / "deploy/values.yaml").read_text().replace("/opt/nvrc/images/", "/opt/nvrc/images/2/")
    assert (desk / "deploy-2/values.yaml").read_text() == moved


@pytest.mark.parametrize(("folder", "sums"), [("deploy-next", "/opt/nvrc/images/2"), ("deploy", "/opt/nvrc/images")])
def test_sums_are_where_the_page_checks_them(desk: Path, folder: str, sums: str) -> None:
    assert f"ssh NODE sha256sum -c {sums}/SHA256SUMS\n" in PAGE
    assert f"scp SHA256SUMS NODE:{sums}/\n" in (desk / folder / "README.md").read_text()


def test_names_are_those_of_the_folder(desk: Path) -> None:
    pod = yaml.safe_load((desk / "deploy-next/pod.yaml").read_text())
    assert set(re.findall(r"kubectl (?:logs|describe pod) (\S+)$", PAGE, re.MULTILINE)) == {pod["metadata"]["name"]}
    assert f"NODE:{class_folder(find_class('kata-qemu-nvidia-gpu'))}/config.d/\n" in PAGE
