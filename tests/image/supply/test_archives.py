# SPDX-License-Identifier: Apache-2.0
"""Archives of somebody else's beside a distribution's: addresses, keys, branches, bare folders; apt itself decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.archives import make_key, make_package, sign, stop_agent
from nvrc_build.declared.declared import Suite
from nvrc_build.ground.errors import BuildError
from nvrc_build.supply import apt
from nvrc_build.supply.apt import Archive, Pin, Source
from nvrc_build.supply.archives import Addresses, find_source, parse_named
from nvrc_build.supply.suggest import package_names, suggest

HERE = Suite(name="cuda", suite="./")
needs_apt = pytest.mark.skipif(any(shutil.which(name) is None for name in ("apt-get", "gpg", "dpkg-deb")),
                               reason="apt, gnupg or dpkg is not installed")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Short: the agent's socket lies in it, and a socket's path has 107 characters at most."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="key-") as folder:
        yield Path(folder) / "home"
        stop_agent(Path(folder) / "home")


@pytest.fixture(scope="module")
def key(home: Path) -> Path:
    return make_key(home)


@pytest.fixture(scope="module")
def vendor(home: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two branches of a driver, signed with the key."""
    folder = tmp_path_factory.mktemp("vendor")
    for version in ("570.1.2-1", "580.95.5-1"):
        make_package(folder, "libcuda1", version, {"/usr/lib/x86_64-linux-gnu/libcuda.so.1": version.encode()})
    sign(folder, home)
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    folder = tmp_path / "bare"
    folder.mkdir()
    make_package(folder, "libcuda1", "550.163.01-2", {"/usr/x": b"old"})
    make_package(folder, "tool", "1", {"/usr/bin/tool": b"x"})
    return folder


@pytest.fixture
def both(tmp_path: Path, vendor: Path, key: Path, bare: Path) -> tuple[Source, ...]:
    """A folder of bare packages, and the vendor's."""
    local = Addresses(places={"bare": str(bare)})
    return (find_source(replace(HERE, name="bare"), tmp_path, local, None, tmp_path / "apt"),
            source(tmp_path, vendor, key))


def opened(state: Path, *sources: Source, pins: tuple[Pin, ...] = ()) -> Archive:
    archive = Archive(sources=sources, state=state / "apt", pins=pins)
    apt.update(archive)
    return archive


def source(state: Path, folder: Path, key: Path | None = None) -> Source:
    given = Addresses(places={"cuda": str(folder)}, keys={"cuda": key} if key else {})
    return find_source(HERE, state, given, None, state / "apt")


@pytest.mark.long
@needs_apt
@pytest.mark.parametrize(("branch", "version"), [("", "580.95.5-1"), ("570", "570.1.2-1"), ("550", "550.163.01-2")])
def test_two_archives_are_one_and_a_branch_wins_over_higher_versions(tmp_path: Path, both: tuple[Source, ...],
                                                                     branch: str, version: str) -> None:
    pins = (Pin(packages=("libcuda1", "libnvidia-*"), version=f"{branch}."),) if branch else ()
    archive = opened(tmp_path, *both, pins=pins)
    found = apt.describe(archive, ["libcuda1", "tool"])
    assert [(row.name, row.version) for row in found] == [("libcuda1", version), ("tool", "1")]
    debs = tmp_path / "debs"
    debs.mkdir()
    apt.download(archive, found, debs)
    assert all(apt.is_present(row, debs) for row in found)


@pytest.mark.long
@needs_apt
def test_an_archive_that_somebody_changed_is_refused(tmp_path: Path, vendor: Path, key: Path) -> None:
    evil = tmp_path / "evil"
    shutil.copytree(vendor, evil)
    (evil / "Packages").write_text((evil / "Packages").read_text().replace("580.95", "580.96"))
    with pytest.raises(BuildError, match="reading the package lists"):
        opened(tmp_path, source(tmp_path, evil, key))


@pytest.mark.long
@needs_apt
def test_an_archive_signed_by_somebody_else_is_refused(tmp_path: Path, vendor: Path, key: Path) -> None:
    other = tmp_path / "other.gpg"
    debian = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not debian.is_file():
        pytest.skip("no other key at hand")
    shutil.copyfile(debian, other)
    with pytest.raises(BuildError, match="reading the package lists"):
        opened(tmp_path, source(tmp_path, vendor, other))


@pytest.mark.parametrize(("row", "given", "expected"), [
    pytest.param(HERE, Addresses(), "archive cuda has no address of its own; give it: --archive cuda=URI", id="no-address"),
    pytest.param(HERE, Addresses(places={"cuda": "https://x.test/"}), "archive cuda has no key, so the network", id="no-key"),
    pytest.param(HERE, Addresses(places={"cuda": "/nonexistent"}), "/nonexistent is not a folder", id="no-folder"),
    pytest.param(HERE, Addresses(places={"cuda": "."}, keys={"cuda": Path("/nonexistent")}),
                 "key /nonexistent of archive cuda cannot be read: No such file", id="key-is-not-there"),
    pytest.param(replace(HERE, uri="https://x.test/", keyring="keys/k.asc"), Addresses(),
                 "keys/k.asc of archive cuda cannot be read", id="declared-key-is-not-there"),
])
def test_what_is_missing_is_asked_for(tmp_path: Path, row: Suite, given: Addresses, expected: str) -> None:
    with pytest.raises(BuildError, match=expected.replace(".", r"\.")):
        find_source(row, tmp_path, given, None, tmp_path)


def test_a_key_without_a_signed_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"\x99")
    with pytest.raises(BuildError, match="has no Release file that the key could hold for"):
        find_source(HERE, tmp_path, Addresses(places={"cuda": str(tmp_path)}, keys={"cuda": tmp_path / "k"}), None, tmp_path)


@pytest.mark.parametrize("words", [("cuda",), ("=x",), ("a=1", "a=2"), ("a=",)], ids=["bare", "no-name", "twice", "empty"])
def test_options_by_name(words: tuple[str, ...]) -> None:
    assert parse_named("--archive", ("a=x=y", "b=/z")) == {"a": "x=y", "b": "/z"}
    with pytest.raises(BuildError, match="expected NAME=VALUE, each name once"):
        parse_named("--archive", words)


@pytest.mark.parametrize(("library", "first"), [
    ("libssl.so.3", "libssl3"), ("libfoo_bar.so.1.2", "libfoo-bar1.2"), ("libpcre2-8.so.0", "libpcre2-8-0"), ("libx.so", "libx"),
])
def test_names_of_library_packages(library: str, first: str) -> None:
    assert package_names(library)[0] == first
    assert package_names("ld.so") == ()


@pytest.mark.long
@needs_apt
def test_a_missing_library_is_answered_with_a_package_that_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    make_package(folder, "libthing2t64", "1", {"/usr/x": b"x"})
    opened(tmp_path / "cache", source(tmp_path / "cache", folder))
    assert suggest("libthing.so.2", tmp_path / "cache").startswith("package libthing2t64 has it by its name: give --package")
    assert suggest("libother.so.2", tmp_path / "cache").startswith("a distribution would call its package libother2")
