# SPDX-License-Identifier: Apache-2.0
"""From declared archives to what apt reads: an address, a key, and an index where somebody's folder has none.

A distribution's archive is at the mirror of this machine or the one given. Another's is at the address that its
declaration or the caller names: a URI, or a folder of this machine. What is signed needs the key. A folder without
signature is believed as it is, like any file that the caller gives; one of bare packages gets an index made of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nvrc_build.declared.declared import Suite
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import find, run
from nvrc_build.supply.apt import Source, file_sha256
from nvrc_build.supply.mirror import choose_mirror
from nvrc_build.supply.scripts import read_scripts

_ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_INDEXES = ("InRelease", "Release.gpg", "Release", "Packages", "Packages.gz", "Packages.xz")
_INDEXED = re.compile(r"^(Filename|Size|MD5sum|SHA1|SHA256|SHA512)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<value>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What the caller says of archives, by their names: where they are, and files with their keys."""

    places: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Path] = field(default_factory=dict)


def parse_named(option: str, words: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE, each name once."""
    found: dict[str, str] = {}
    for word in words:
        hit = _NAMED.fullmatch(word)
        if hit is None or hit["name"] in found:
            raise BuildError(f"{option} {word}: expected NAME=VALUE, each name once", f"write {option} cuda=...")
        found[hit["name"]] = hit["value"]
    return found


def find_source(row: Suite, rootfs: Path, given: Addresses, mirror: str | None, state: Path) -> Source:
    place = given.places.get(row.name, row.uri)
    if not place and row.distribution:
        place = choose_mirror(row.distribution, row.suite, mirror)
    if not place:
        raise BuildError(f"archive {row.name} has no address of its own",
                         f"give it: --archive {row.name}=URI or a folder, and its key: --archive-key {row.name}=FILE")
    key = _find_key(row, rootfs, given, state)
    if "://" in place or place.startswith("file:"):
        if key is None:
            raise BuildError(f"archive {row.name} has no key, so the network could change what comes from there",
                             f"give the key it is signed with: --archive-key {row.name}=FILE")
        return Source(uri=place, suite=row.suite, components=row.components, keyring=key)
    return _local(row, Path(place), key, state)


def _find_key(row: Suite, rootfs: Path, given: Addresses, state: Path) -> Path | None:
    """apt tells the two forms of a key by the name of its file, and vendors name theirs as they like."""
    path = given.keys.get(row.name) or (rootfs / row.keyring if row.keyring else None)
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as wrong:
        raise BuildError(f"key {path} of archive {row.name} cannot be read: {wrong.strerror}",
                         "install the package that has it, such as debian-archive-keyring, or give it with "
                         f"--archive-key {row.name}=FILE") from wrong
    if path.suffix == ".gpg" and not data.lstrip().startswith(_ARMOUR):
        return path
    copy = state / f"{row.name}{'.asc' if _ARMOUR in data else '.gpg'}"
    state.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(data)
    return copy


def _local(row: Suite, folder: Path, key: Path | None, state: Path) -> Source:
    if not folder.is_dir():
        raise BuildError(f"archive {row.name}: {folder} is not a folder", "give a URI, or a folder with packages")
    place = folder.resolve()
    inside = place / row.suite if row.suite.endswith("/") else place / "dists" / row.suite
    if any((inside / name).is_file() for name in _INDEXES):
        return Source(uri=f"file:{place}", suite=row.suite, components=row.components, keyring=key)
    if key is not None:
        raise BuildError(f"archive {row.name}: {folder} has no Release file that the key could hold for",
                         "sign the repository, or leave the key out to believe the folder as it is")
    made = state / f"{row.name}.index"
    made.mkdir(parents=True, exist_ok=True)
    (made / "Packages").write_text(index_packages(place), encoding="utf-8")
    link = made / "pool"
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return Source(uri=f"file:{made}", suite="./", components=(), keyring=None)


def index_packages(folder: Path) -> str:
    """A Packages file of all packages below a folder; deb-control(5) and the repository format of Debian."""
    stanzas = []
    for deb in sorted(folder.rglob("*.deb")):
        if not deb.is_file() or not deb.name.isprintable():
            raise BuildError(f"package {str(deb)!a} is not a file, or has a name that is not one line of text",
                             "rename or remove it")
        read_scripts(deb)  # bounded, which what follows is not: all of a package's control files go to /tmp
        control = run([find("dpkg-deb", "dpkg"), "--field", deb], what=f"reading {deb.name}").rstrip()
        if own := _INDEXED.search(control):
            raise BuildError(f"package {str(deb)!a} has a field that belongs to an index: {own[1]}",
                             "build the package without it")
        stanzas.append(f"{control}\nFilename: pool/{deb.relative_to(folder)}\nSize: {deb.stat().st_size}\n"
                       f"SHA256: {file_sha256(deb)}\n")
    if not stanzas:
        raise BuildError(f"there is no package (*.deb) below {folder}", "give the folder that has them")
    return "\n".join(stanzas)
