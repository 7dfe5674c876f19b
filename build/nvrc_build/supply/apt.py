# SPDX-License-Identifier: Apache-2.0
"""A private apt: its own lists, cache and (empty) status, so that nothing of this machine's package system is touched.

Resolves names to an exact closure and downloads it, verified by the archive's signature and again by the lock's
sha256. Never installs: packages are unpacked, their maintainer scripts never run. Needs no privileges.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.declared.kinds import FileWord, Sha256
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, find, run

_INST = re.compile(r"^Inst (?P<name>\S+) \((?P<version>\S+) ")
# deb-control(5), deb-version(7).
_FIELDS = {name: re.compile(rule) for name, rule in {
    "Package": "[a-z0-9][a-z0-9+.-]*", "Version": r"[A-Za-z0-9][A-Za-z0-9.+~:-]*", "Architecture": "[a-z0-9-]+",
    "Size": "[0-9]{1,15}", "SHA256": "[0-9a-f]{64}"}.items()}
_NOT_FOUND = re.compile(r"E: (?:Version .* was not found|Unable to locate package .*|Can't find .*)")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One binary package, pinned. `depends` stays text: closure is apt's business, not ours."""

    name: FileWord
    version: FileWord
    arch: FileWord
    size: int
    sha256: Sha256

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version}_{self.arch}.deb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A suite and whose signature holds for it. Without a keyring it is a folder of this machine, believed as it is."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: Path | None

    def stanza(self) -> str:
        signed = f"Signed-By: {self.keyring}" if self.keyring is not None else "Trusted: yes"
        components = f"Components: {' '.join(self.components)}\n" if self.components else ""
        return f"Types: deb\nURIs: {self.uri}\nSuites: {self.suite}\n{components}{signed}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Packages, with `*`, that are held at versions which begin with a text."""

    packages: tuple[str, ...]
    version: str

    def stanza(self) -> str:
        """Above 1000, so that a higher version of another archive does not win."""
        return f"Package: {' '.join(self.packages)}\nPin: version {self.version}*\nPin-Priority: 1001\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Sources that are one archive together, and where their private apt keeps state."""

    sources: tuple[Source, ...]
    state: Path
    pins: tuple[Pin, ...] = ()

    def options(self) -> list[str]:
        pairs = {
            "Dir::State": self.state, "Dir::State::lists": self.state / "lists",
            "Dir::State::status": self.state / "status", "Dir::Cache": self.state / "cache",
            "Dir::Etc::sourcelist": self.state / "archive.sources", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": self.state / "preferences", "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": "amd64", "APT::Architectures": "amd64", "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
            "APT::Install-Recommends": "false", "APT::Get::Assume-Yes": "true",
            "APT::Sandbox::User": "", "Acquire::Retries": "3",
            # Whatever this machine's own apt lets pass.
            "APT::Get::AllowUnauthenticated": "false", "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false", "Acquire::AllowDowngradeToInsecureRepositories": "false",
        }
        return [word for name, value in pairs.items() for word in ("-o", f"{name}={value}")]


def update(archive: Archive) -> None:
    for source in archive.sources:
        if source.keyring is not None and not source.keyring.is_file():
            raise BuildError(f"keyring {source.keyring} is missing", "install the package that has it, such as "
                             "debian-archive-keyring, or give the key with --archive-key NAME=FILE")
    for folder in ("lists/partial", "cache/archives/partial", "tmp"):
        (archive.state / folder).mkdir(parents=True, exist_ok=True)
    (archive.state / "status").touch()
    for name, rows in (("archive.sources", archive.sources), ("preferences", archive.pins)):
        (archive.state / name).write_text("\n".join(row.stanza() for row in rows), encoding="utf-8")
    _apt(archive, ["update", "--error-on=any"],
         what=f"reading the package lists of {', '.join(source.suite for source in archive.sources)}")


def _apt(archive: Archive, words: Sequence[str], *, cwd: Path | None = None, what: str) -> str:
    argv = [find("apt-get", "apt"), *archive.options(), "-q", *words]
    env = clean_env({"TMPDIR": str(archive.state / "tmp")}, network=True)
    return run(argv, env=env, cwd=cwd, timeout_s=1200, what=what)


def resolve(archive: Archive, names: Sequence[str]) -> tuple[Package, ...]:
    """The whole closure of `names` as apt would install it on an empty system, recommendations left out."""
    text = _apt(archive, ["--simulate", "install", "--", *names], what=f"resolving {' '.join(names)}")
    exact = [f"{hit['name']}={hit['version']}" for hit in map(_INST.match, text.splitlines()) if hit]
    return describe(archive, exact)


def describe(archive: Archive, exact: Sequence[str]) -> tuple[Package, ...]:
    argv = [find("apt-cache", "apt"), *archive.options(), "--no-all-versions", "show", "--", *exact]
    text = run(argv, env=clean_env(), what="apt-cache show")
    rows = [dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
            for stanza in text.split("\n\n") if stanza.strip()]
    return tuple(sorted({_package(row) for row in rows}))


def _package(row: Mapping[str, str]) -> Package:
    """What an index says goes into file names, locks and the words of a command."""
    wrong = [f"{name}: {row[name]!a:.90}" if name in row else f"{name} is missing" for name, rule in _FIELDS.items()
             if not rule.fullmatch(row.get(name, ""))]
    if wrong:
        raise BuildError(f"the archive's index has an odd package {row.get('Package', '')!a:.90}",
                         "find out what is wrong with the archive; index it again with SHA256", findings=tuple(wrong))
    return Package(name=row["Package"], version=row["Version"], arch=row["Architecture"], size=int(row["Size"]),
                   sha256=row["SHA256"])


def download(archive: Archive, packages: Sequence[Package], debs: Path) -> None:
    """Bring every package that is not there yet into `debs`; a file only gets its name once its hash is right."""
    missing = [package for package in packages if not is_present(package, debs)]
    if not missing:
        return
    partial = debs / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    words = ["download", "--", *(f"{package.name}:{package.arch}={package.version}" if package.arch != "all" else
                           f"{package.name}={package.version}" for package in missing)]
    try:
        _apt(archive, words, cwd=partial, what="downloading packages")
    except BuildError as failed:
        gone = tuple(line for line in failed.findings if _NOT_FOUND.match(line))
        if gone:
            raise VanishedError("the archive no longer has a locked package version",
                                "run: nvrc-image lock, and review what changed; or give --mirror a snapshot of the "
                                "archive from before", findings=gone) from failed
        raise
    for package in missing:
        adopt(package, partial, debs)


class VanishedError(BuildError):
    """A locked version is no longer in the archive."""


def is_present(package: Package, debs: Path) -> bool:
    """By content: a file of that name and size may have been put there by anybody, or be damaged."""
    path = debs / package.file_name
    return path.is_file() and path.stat().st_size == package.size and file_sha256(path) == package.sha256


def take(package: Package, debs: Path) -> Path:
    """The package's file for whoever opens it: what is in the cache is believed only as far as its hash."""
    if not is_present(package, debs):
        raise BuildError(f"{debs / package.file_name} is not the package that the lock names any more",
                         "find out who changes the cache; run the build again, which fetches it again")
    return debs / package.file_name


def adopt(package: Package, partial: Path, debs: Path) -> None:
    quoted = package.version.replace(":", "%3a")
    path = partial / f"{package.name}_{quoted}_{package.arch}.deb"
    if not path.is_file():
        raise BuildError(f"apt did not leave {path.name} behind", "run the build again")
    found = file_sha256(path)
    if found != package.sha256:
        path.unlink()
        raise BuildError(f"package {package.name} {package.version}: sha256 is {found}, the lock says {package.sha256}",
                         "run nvrc-image lock, and review what changed: the mirror or the lock is wrong")
    path.rename(debs / package.file_name)


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
