# SPDX-License-Identifier: Apache-2.0
"""A QEMU that can attach vfio-user functions: the machine's own if it is new enough, else Debian's backport, unpacked.

Nothing is installed. The packages and all they need lie in the cache and are run by their own dynamic loader with
their own libraries, so that the C library of this machine does not matter. Needs apt, dpkg-deb and a mirror, once.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from nvrc_build.ground.cache import Cache, digest
from nvrc_build.ground.errors import BuildError
from nvrc_build.supply import apt, roots
from nvrc_build.supply.apt import Archive, Package
from nvrc_build.supply.mirror import choose_mirror
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places
from nvrc_lab.qemu.qemu import Qemu, find_qemu

NEEDED = (10, 1)
STAGE, LAUNCHER = "qemu-backport", "qemu-system-x86_64"
SUITES = ("trixie", "trixie-backports")
# Each by name: apt takes from backports only what it is told to, and these belong to one version.
PACKAGES = tuple(f"{name}/{SUITES[1]}" for name in ("qemu-system-x86", "qemu-system-common", "qemu-system-data",
                                                    "seabios"))
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LIBRARIES, LOADER = "usr/lib/x86_64-linux-gnu", "usr/lib64/ld-linux-x86-64.so.2"
_FIRMWARE = ("usr/share/qemu", "usr/share/seabios")
# Bumped when what is made of the packages changes.
_FORM = "1"


def find_newer_qemu(places: Places) -> Qemu:
    own = _own_qemu()
    if own is not None:
        return own
    qemu = find_qemu(str(unpack_backport(places) / LAUNCHER))
    if qemu.version < NEEDED:
        raise LabError(f"the backport is QEMU {qemu.version[0]}.{qemu.version[1]}, older than {NEEDED[0]}.{NEEDED[1]}",
                       "install a newer qemu-system-x86, or take --route a")
    return qemu


def _own_qemu() -> Qemu | None:
    try:
        qemu = find_qemu()
    except LabError:
        return None
    return qemu if qemu.version >= NEEDED else None


def unpack_backport(places: Places) -> Path:
    """The folder with the launcher. Once it is there, no archive is asked whether it has something newer."""
    cache, key = Cache(places.cache.resolve()), digest(_FORM, *PACKAGES)
    found = cache.find(STAGE, key)
    if found is not None:
        return found
    try:
        with cache.locked(lambda _: None):
            return cache.get(STAGE, key, lambda out: _make(cache, out))
    except BuildError as err:
        need = f"QEMU {NEEDED[0]}.{NEEDED[1]} or newer, with vfio-user, is not to be had: {err.what}"
        raise LabError(need, f"{err.hint}; or install such a qemu-system-x86, or take --route a") from err


def _make(cache: Cache, out: Path) -> None:
    for package in fetch(cache):
        roots.unpack_one(package, cache.debs, out / "root")
    launcher = out / LAUNCHER
    # The stage is renamed when it is whole, so the launcher finds its tree by its own place.
    launcher.write_text(make_launcher(), encoding="ascii")
    launcher.chmod(0o755)


def fetch(cache: Cache) -> tuple[Package, ...]:
    uri = choose_mirror("debian", SUITES[0])
    archive = Archive(uri=uri, suite=" ".join(SUITES), components=("main",), keyring=KEYRING,
                      state=cache.folder("apt") / digest(uri, *SUITES)[:16])
    apt.update(archive)
    packages = apt.resolve(archive, PACKAGES)
    apt.download(archive, packages, cache.folder("debs"))
    return packages


def make_launcher() -> str:
    """Replaces itself by QEMU, so that whoever started it has QEMU's own pid to wait for and to end."""
    firmware = " ".join(f'-L "$here/{folder}"' for folder in _FIRMWARE)
    return "\n".join((
        "#!/bin/sh",
        'here=$(dirname "$(readlink -f "$0")")/root',
        f'export QEMU_MODULE_DIR="$here/{LIBRARIES}/qemu"',
        f'exec "$here/{LOADER}" --library-path "$here/{LIBRARIES}" '
        f'"$here/usr/bin/{shlex.quote(LAUNCHER)}" {firmware} "$@"',
        "",
    ))
