# SPDX-License-Identifier: Apache-2.0
"""Forbids module loading for the rest of this boot, as soon as the last module is in. There is no way back.

What else the command line wants locked goes the same way: kexec, and the root of an initramfs against writing.
"""

from __future__ import annotations

from nvrc import paths
from nvrc.errors import NvrcError
from nvrc.facts import Facts, replace
from nvrc.linux import MS_RDONLY, MS_REMOUNT
from nvrc.system import System


def lock(system: System, facts: Facts) -> Facts:
    assert facts.parameters is not None  # noqa: S101 - `needs` puts parameters before this step
    settings = facts.parameters.settings
    if settings.lockdown_kexec:
        _write_one(system, paths.KEXEC_DISABLED)
    if settings.lockdown_root:
        _make_root_read_only(system)
    _write_one(system, paths.MODULES_DISABLED)
    return replace(facts, modules_locked=True)


def _write_one(system: System, path: str) -> None:
    if not system.exists(path):
        raise NvrcError("E_LOCK_MODULES", f"{path} does not exist")
    try:
        system.write(path, b"1")
        locked = system.read(path).strip() == b"1"
    except OSError as err:
        raise NvrcError("E_LOCK_MODULES", f"cannot write 1 to {path}: {err.strerror}") from err
    if not locked:
        raise NvrcError("E_LOCK_MODULES", f"{path} does not read back as 1")


def _make_root_read_only(system: System) -> None:
    try:
        system.mount("", "/", "", MS_REMOUNT | MS_RDONLY)
    except OSError as err:
        raise NvrcError("E_LOCK_MODULES", f"cannot remount / read-only: {err.strerror}",
                        "drop nvrc.lockdown.root, or find what holds a file of the root open for writing") from err
