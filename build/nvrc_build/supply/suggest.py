# SPDX-License-Identifier: Apache-2.0
"""Which package has a library, by how distributions name them (Debian Policy 8.1): libfoo.so.1 is in libfoo1.

Names are looked for in the package lists that apt has read so far. Nothing is fetched; without lists the rule alone
speaks.
"""

from __future__ import annotations

import re
from pathlib import Path

from nvrc_build.ground.run import find, run
from nvrc_build.supply.apt import Archive

_SONAME = re.compile(r"(?P<base>lib.+)\.so(?:\.(?P<version>[0-9][0-9.]*))?")
_SUFFIXES = ("", "t64")


def package_names(soname: str) -> tuple[str, ...]:
    """What the package may be called, likeliest first."""
    hit = _SONAME.fullmatch(soname)
    if hit is None:
        return ()
    base, version = hit["base"].lower().replace("_", "-"), hit["version"] or ""
    joined = f"{base}-{version}" if base[-1].isdigit() and version else f"{base}{version}"
    short = f"{base}{version.partition('.')[0]}"
    names = [f"{name}{suffix}" for name in dict.fromkeys((joined, short, f"{base}-{version}")) for suffix in _SUFFIXES]
    return tuple(name for name in names if not name.endswith("-"))


def suggest(soname: str, apt: Path) -> str:
    """The remedy for a library that no package of the image has."""
    names = package_names(soname)
    there = set(names) & known_packages(apt)
    found = next((name for name in names if name in there), "")
    if found:
        return f"package {found} has it by its name: give --package {found}, or name it under libraries of the slice"
    if names:
        return f"a distribution would call its package {names[0]}: name the right one under libraries of the slice"
    return "name the package that has it under libraries of the slice"


def known_packages(apt: Path) -> frozenset[str]:
    """The names in all package lists below a folder of apt's."""
    found: set[str] = set()
    for state in sorted(path.parent for path in apt.glob("*/lists") if path.is_dir()):
        options = Archive(sources=(), state=state).options()
        found |= set(run([find("apt-cache", "apt"), *options, "pkgnames"], what="apt-cache pkgnames").split())
    return frozenset(found)
