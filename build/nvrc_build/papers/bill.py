# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of an image as values: every package with version, licences as its own papers name them.

Distribution packages: machine-readable copyright files (DEP-5). Python packages: their METADATA. The licence names are
those papers' own; they are not translated, because a wrong SPDX identifier is worse than a foreign name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import quote

from nvrc_build.supply.apt import Package

_LICENSE = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)
_WORDS = re.compile(r"\s+(?:and|or|AND|OR)(?:/or)?\s+|,\s*")
_CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Component:
    """`kind` is the type of a package URL (deb, pypi, generic)."""

    kind: str
    name: str
    version: str
    arch: str
    licences: tuple[str, ...]
    sha256: str

    @property
    def purl(self) -> str:
        vendor = "debian/" if self.kind == "deb" else ""
        arch = f"?arch={self.arch}" if self.arch else ""
        return f"pkg:{self.kind}/{vendor}{quote(self.name)}@{quote(self.version, safe='~:')}{arch}"


def read_licences(copyright_file: Path) -> tuple[str, ...]:
    """The names a DEP-5 file uses; nothing from a file of another form."""
    if not copyright_file.is_file():
        return ()
    text = copyright_file.read_text(encoding="utf-8", errors="replace")
    if "Format:" not in text[:2000]:
        return ()
    names = (word.strip(" ()") for line in _LICENSE.findall(text) for word in _WORDS.split(line))
    return tuple(sorted({name for name in names if name}))


def debian_components(packages: Iterable[Package], root_of: dict[str, Path]) -> tuple[Component, ...]:
    return tuple(Component(kind="deb", name=row.name, version=row.version, arch=row.arch, sha256=row.sha256,
                           licences=read_licences(root_of[row.name] / "usr/share/doc" / row.name / "copyright"))
                 for row in packages)


def python_components(site: Path, modules: Sequence[str]) -> tuple[Component, ...]:
    """Distributions of `site` of which the frozen program carries a module."""
    carried = {name.partition(".")[0] for name in modules}
    found = []
    for info in sorted(site.glob("*.dist-info")):
        record = (info / "RECORD").read_text(encoding="utf-8").splitlines()
        tops = {line.split("/", 1)[0].split(",", 1)[0].removesuffix(".py") for line in record}
        if tops & carried:
            found.append(_distribution(info))
    return tuple(found)


def _distribution(info: Path) -> Component:
    head = HeaderParser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    stated = str(head.get("License-Expression") or head.get("License") or "")
    classified = [line.removeprefix(_CLASSIFIER) for line in head.get_all("Classifier", [])
                  if line.startswith(_CLASSIFIER)]
    licences = [stated.splitlines()[0]] if stated else classified
    return Component(kind="pypi", name=str(head["Name"]).lower(), version=str(head["Version"]), arch="",
                     licences=tuple(licences), sha256="")
