# SPDX-License-Identifier: Apache-2.0
"""Package files: only one with the locked hash gets its name, and what an image needs is asked for before the work."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.declarations import EMPTY
from nvrc_build.declared.parts import Unscripted
from nvrc_build.ground.errors import BuildError
from nvrc_build.job import open_job
from nvrc_build.papers.bill import read_licences
from nvrc_build.supply.apt import Archive, Package, Source, VanishedError, adopt, download, file_sha256, is_present
from nvrc_build.supply.roots import unpack_one
from nvrc_build.supply.scripts import unexplained_scripts


def package(data: bytes, name: str = "pkg", version: str = "1:2-3") -> Package:
    return Package(name=name, version=version, arch="amd64", size=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An archive of one empty suite: apt knows no package at all."""
    state = tmp_path / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    (state / "archive.sources").touch()
    none = Source(uri="file:/nonexistent", suite="none", components=("main",), keyring=tmp_path / "k")
    return Archive(sources=(none,), state=state)


def test_a_package_that_is_there_is_not_asked_for(tmp_path: Path, archive: Archive) -> None:
    row = package(b"data")
    (tmp_path / row.file_name).write_bytes(b"data")
    download(archive, [row], tmp_path)


def test_a_half_written_package_does_not_count(tmp_path: Path) -> None:
    row = package(b"data")
    (tmp_path / row.file_name).write_bytes(b"da")
    assert not is_present(row, tmp_path)


def test_a_package_with_other_bytes_of_the_same_length_does_not_count(tmp_path: Path) -> None:
    row = package(b"data")
    (tmp_path / row.file_name).write_bytes(b"evil")
    assert not is_present(row, tmp_path)
    with pytest.raises(BuildError, match="is not the package that the lock names any more"):
        unpack_one(row, tmp_path, tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.skipif(not Path("/usr/bin/apt-get").exists(), reason="apt is not installed")
def test_a_vanished_version_says_so_and_what_to_do(tmp_path: Path, archive: Archive) -> None:
    with pytest.raises(VanishedError, match="run: nvrc-image lock") as caught:
        download(archive, [package(b"data")], tmp_path)
    assert any("pkg" in line for line in caught.value.findings)


def test_a_wrong_hash_is_refused_and_the_file_removed(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial/pkg_1%3a2-3_amd64.deb").write_bytes(b"evil")
    with pytest.raises(BuildError, match=r"package pkg 1:2-3: sha256 is .*, the lock says"):
        adopt(package(b"data"), tmp_path / "partial", tmp_path)
    assert list(tmp_path.rglob("*.deb")) == []
    (tmp_path / "partial/pkg_1%3a2-3_amd64.deb").write_bytes(b"data")
    adopt(package(b"data"), tmp_path / "partial", tmp_path)
    assert (tmp_path / "pkg_1:2-3_amd64.deb").read_bytes() == b"data"


@pytest.mark.parametrize(("profile", "agent", "expected"), [
    ("nvidia", None, "image nvidia needs a kata-agent; give one with --agent PATH"),
    ("lab", Path("/nonexistent/agent"), "agent /nonexistent/agent does not exist"),
    ("nvidia-ubuntu", None, "image nvidia-ubuntu is declared but cannot be built"),
])
def test_what_an_image_needs_is_asked_for_before_any_work(tmp_path: Path, profile: str, agent: Path | None,
                                                          expected: str) -> None:
    with pytest.raises(BuildError, match=expected):
        open_job(profile, cache=tmp_path, agent=agent)
    assert list(tmp_path.iterdir()) == []


def make_deb(folder: Path, name: str, *scripts: str) -> Package:
    """A real package with one file and the given maintainer scripts."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.test>\n"
                                         "Description: x\n")
    for script in scripts:
        (tree / "DEBIAN" / script).write_text("#!/bin/sh\n")
        (tree / "DEBIAN" / script).chmod(0o755)
    (tree / "usr").mkdir()
    (tree / "usr" / name).write_text("x")
    deb = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, deb], check=True, capture_output=True)
    return Package(name=name, version="1", arch="all", size=deb.stat().st_size, sha256=file_sha256(deb))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_a_package_whose_scripts_would_have_to_run_is_refused_unless_a_slice_says_why_not(tmp_path: Path) -> None:
    packages = (make_deb(tmp_path, "plain", "prerm"), make_deb(tmp_path, "scripted", "postinst", "preinst"))
    assert unexplained_scripts((), {"plain", "scripted"}, packages, tmp_path) == [
        "package scripted has a preinst and a postinst that would have to run; scripts never run, so say in a slice's "
        "[[unscripted]] why its files are good without, or leave it"]
    assert unexplained_scripts((), {"plain"}, packages, tmp_path) == []
    row = replace(EMPTY, unscripted=(Unscripted(package="scripted", why="x"),))
    assert unexplained_scripts((row,), {"plain", "scripted"}, packages, tmp_path) == []
    row = replace(EMPTY, unscripted=(Unscripted(package="plain", why="x"),))
    assert unexplained_scripts((row,), {"plain"}, packages, tmp_path) == [
        "slice 'one': plain has no scripts; take its [[unscripted]] out"]
    (tmp_path / "plain_1_all.deb").write_bytes(b"not a package")
    with pytest.raises(BuildError, match=r"plain_1_all.deb is not the package that the lock names any more"):
        unexplained_scripts((), {"plain"}, packages, tmp_path)


def test_licences_as_a_copyright_file_names_them(tmp_path: Path) -> None:
    path = tmp_path / "copyright"
    path.write_text("Format: https://example.test/\nFiles: *\nLicense: GPL-2+ or MIT\n text\n\nLicense: BSD-3-clause\n")
    assert read_licences(path) == ("BSD-3-clause", "GPL-2+", "MIT")
    path.write_text("Free text.\nLicense: not a field\n")
    assert read_licences(path) == ()
    assert read_licences(tmp_path / "gone") == ()


@pytest.mark.long
def test_without_the_libraries_for_bills_of_materials_there_is_no_image() -> None:
    code = ("import sys; sys.modules['spdx_tools'] = None\nfrom nvrc_build.papers.papers import make_bills\n"
            "try: make_bills('lab', (), None)\nexcept Exception as wrong: print(type(wrong).__name__, wrong)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("WrongCallError the bills of materials need a Python package that is not installed (spdx_tools")
    assert "run: ./dev setup" in said
