# SPDX-License-Identifier: Apache-2.0
"""Loads what agent and containers need, and forbids loading for the rest of this boot. There is no way back.

Disks are plugged in and rules of a firewall made when no module can be loaded any more, so these come whatever the bus
shows (nvrc/vocabulary/needs.py). It runs beside the attach of the GPUs, which takes seconds. Nothing but PID 1 loads
modules meanwhile, as the image has no modprobe for the kernel to start.

The kernel itself is locked down with it (kernel_lockdown(7)): a root of a container may otherwise map the registers and
the memory of every PCI function from /sys, also of a GPU it was not given. What else the line asks for is locked as
well: kexec, and the root of an initramfs against writing.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, replace
from nvrc.hardware.modules import Modules
from nvrc.hardware.needs import check_tee, load_needs
from nvrc.machine.linux import MS_RDONLY, MS_REMOUNT
from nvrc.machine.system import Files, Kernel, System
from nvrc.steps.filesystems import mount_optional
from nvrc.steps.modules import read_guest
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble, remark

_SHOWN = 6


def run(system: System, facts: Facts) -> Facts:
    settings = facts.settings
    loaded, warnings = _load_needs(system, facts)
    if settings.lockdown_kexec:
        _write_one(system, paths.KEXEC_DISABLED)
    if settings.lockdown_root:
        _make_root_read_only(system)
    _write_one(system, paths.MODULES_DISABLED)
    _lock_down(system, settings.lockdown_kernel)
    return replace(facts, agent_modules=loaded, warnings=facts.warnings + warnings)


def deadline_s(facts: Facts) -> float:
    """Loading as long as any program may take, and a little for the lock."""
    return facts.settings.timeout_command_s + 10


def tell(facts: Facts) -> str:
    names = facts.agent_modules or ()
    return " ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _load_needs(system: System, facts: Facts) -> tuple[tuple[str, ...], tuple[Trouble, ...]]:
    """Those that were loaded, and what there is to warn of.

    The agent may do without one; if not, its own message comes later.
    """
    guest = read_guest(facts)
    modules = Modules(system, options=facts.settings.module_options)
    loaded = load_needs(system, modules, guest, before_driver=False)
    if loaded:
        mount_optional(system)
    doubts = check_tee(system, modules, guest)
    return loaded, (*map(remark, modules.remarks), *doubts)


def _write_one(system: Files, path: str) -> None:
    if not system.exists(path):
        raise NvrcError("E_LOCK_MODULES", f"{path} does not exist")
    try:
        system.write(path, b"1")
        locked = system.read(path).strip() == b"1"
    except OSError as err:
        raise NvrcError("E_LOCK_MODULES", f"cannot write 1 to {path}: {err.strerror}") from err
    if not locked:
        raise NvrcError("E_LOCK_MODULES", f"{path} does not read back as 1")


def _lock_down(system: Files, wanted: bool | None) -> None:
    """`integrity`, not more: the next level takes away profiles and BPF, which a privileged container may be given."""
    if wanted is False:
        return
    try:
        if b"[none]" not in system.read(paths.LOCKDOWN, 256):
            return  # it is as high or higher, and cannot be lowered
        system.write(paths.LOCKDOWN, b"integrity")
        locked = b"[integrity]" in system.read(paths.LOCKDOWN, 256)
    except FileNotFoundError:
        if wanted is None:
            return
        raise NvrcError("E_LOCK_MODULES", f"{paths.LOCKDOWN} does not exist: this kernel has no lockdown",
                        "drop nvrc.lockdown.kernel, or build the kernel with SECURITY_LOCKDOWN_LSM") from None
    except OSError as err:
        raise NvrcError("E_LOCK_MODULES", f"cannot write integrity to {paths.LOCKDOWN}: {err.strerror}") from err
    if not locked:
        raise NvrcError("E_LOCK_MODULES", f"{paths.LOCKDOWN} does not read back as integrity")


def _make_root_read_only(system: Kernel) -> None:
    try:
        system.mount("", "/", "", MS_REMOUNT | MS_RDONLY)
    except OSError as err:
        raise NvrcError("E_LOCK_MODULES", f"cannot remount / read-only: {err.strerror}",
                        "drop nvrc.lockdown.root, or find what holds a file of the root open for writing") from err
