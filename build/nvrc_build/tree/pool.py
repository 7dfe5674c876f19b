# SPDX-License-Identifier: Apache-2.0
"""All files an image may take from: unpacked packages and what the build itself made, each under a package name.

A name that starts with '@' is no package but a product of this build (the frozen init, the modules, the agent).
Nothing is copied here; the pool only knows where things lie.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.ground.errors import BuildError

# Distribution packages of the usrmerge era still name a few old places.
_PRODUCT = "@"
_MERGED = re.compile(r"^/(bin|sbin|lib|lib64)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    package: str
    path: str
    file: Path

    @property
    def is_link(self) -> bool:
        return self.file.is_symlink()


class Pool:
    """A path that several have is a package's before a product's: what components bundle, PID 1 would load as well."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._by_package = {package: _list(package, root) for package, root in sorted(roots.items())}
        self._by_path: dict[str, list[Item]] = {}
        for package in sorted(self._by_package, key=lambda name: (name.startswith(_PRODUCT), name)):
            for item in self._by_package[package]:
                self._by_path.setdefault(item.path, []).append(item)

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(self._by_package)

    def find(self, path: str) -> Item | None:
        """Whose it is has to be plain: a package of another archive could bring a library of PID 1's."""
        found = self._by_path.get(path, [])
        rivals = [item for item in found if not item.package.startswith(_PRODUCT)]
        if rival := next((item for item in rivals[1:] if _content(item) != _content(rivals[0])), None):
            raise BuildError(f"{path} of package {rivals[0].package} is another file than of package {rival.package}",
                             "take it in a slice, by the package that it is to be of")
        return found[0] if found else None

    def match(self, package: str, pattern: str) -> tuple[Item, ...]:
        rule = pattern_rule(pattern)
        return tuple(item for item in self._by_package[package] if rule.fullmatch(item.path))


def _content(item: Item) -> str | bytes:
    return str(item.file.readlink()) if item.is_link else item.file.read_bytes()


def pattern_rule(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` crosses folders, everything else means itself."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))


def _list(package: str, root: Path) -> tuple[Item, ...]:
    found = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            file = Path(folder, name)
            path = _MERGED.sub(r"/usr/\1/", f"/{file.relative_to(root)}")
            found.append(Item(package=package, path=path, file=file))
    return tuple(sorted(found, key=lambda item: item.path))
