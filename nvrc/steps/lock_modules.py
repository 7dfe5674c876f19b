# SPDX-License-Identifier: Apache-2.0
"""Forbids module loading for the rest of this boot, as soon as the last module is in. There is no way back."""

from __future__ import annotations

from nvrc import paths
from nvrc.errors import NvrcError
from nvrc.facts import Facts, replace
from nvrc.system import System


def lock(system: System, facts: Facts) -> Facts:
    if not system.exists(paths.MODULES_DISABLED):
        raise NvrcError("E_LOCK_MODULES", f"{paths.MODULES_DISABLED} does not exist")
    try:
        system.write(paths.MODULES_DISABLED, b"1")
        locked = system.read(paths.MODULES_DISABLED).strip() == b"1"
    except OSError as err:
        raise NvrcError("E_LOCK_MODULES", f"cannot write 1 to {paths.MODULES_DISABLED}: {err.strerror}") from err
    if not locked:
        raise NvrcError("E_LOCK_MODULES", f"{paths.MODULES_DISABLED} does not read back as 1")
    return replace(facts, modules_locked=True)
