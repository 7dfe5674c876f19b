# SPDX-License-Identifier: Apache-2.0
"""Which needs a machine has, and their modules into its kernel.

A need counts when the image serves it and one of its signs is there. An image whose modules the factory did not choose
says nothing of what it serves: there every need counts that has a file. A driver that finds no device of its own is
no matter of anybody; a confidential guest without the device that proves it is one of its reader's.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.hardware.module_tree import canonical
from nvrc.hardware.modules import Modules
from nvrc.machine.system import Files
from nvrc.params.cmdline import tokenise
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.needs import COMPONENTS, NAMES, NEEDS, SERVES, SNP_SIGNS, TDX_SIGNS, Need, Sign
from nvrc.vocabulary.trouble import Trouble

Signs = tuple[tuple[Sign, str], ...]
# The flags of the first processor stand within its first lines; a large machine's file is a megabyte.
_CPU_LIMIT = 8 << 10


class Guest(NamedTuple):
    """What was found out about the machine before: mounted extensions, whether it has GPUs, and NICs."""

    extensions: tuple[str, ...] = ()
    has_gpus: bool = False
    has_nics: bool = False


def is_recognised(system: Files, signs: Signs, guest: Guest) -> bool:
    return any(_is_there(system, kind, value, guest) for kind, value in signs)


def _is_there(system: Files, kind: Sign, value: str, guest: Guest) -> bool:
    if kind is Sign.PATH:
        return system.exists(value)
    if kind is Sign.CPU_FLAG:
        return value in _cpu_flags(system)
    if kind is Sign.WORD:
        return any(token.key == value for token in tokenise(system.read(paths.CMDLINE)))
    if kind is Sign.EXTENSION:
        return value in guest.extensions
    if kind is Sign.NIC:
        return guest.has_nics
    if kind is Sign.VIRTIO:
        return _has_virtio(system, int(value))
    if kind is Sign.TEE_GPU:
        return guest.has_gpus and is_recognised(system, SNP_SIGNS + TDX_SIGNS, guest)
    return True


def _cpu_flags(system: Files) -> tuple[str, ...]:
    try:
        text = system.read(paths.CPUINFO, _CPU_LIMIT).decode("ascii", "replace")
    except OSError:
        return ()
    found = (line.partition(":")[2] for line in text.split("\n") if line.startswith("flags"))
    return tuple(next(found, "").split())


def _has_virtio(system: Files, kind: int) -> bool:
    """Whether such a device is attached. A kernel that shows no virtio bus does not say that there is none."""
    try:
        found = system.list_dir(paths.VIRTIO_DEVICES)
    except OSError:
        return True
    return any(int(system.read(f"{paths.VIRTIO_DEVICES}/{name}/device", 16), 16) == kind for name in found)


def load_needs(system: Files, modules: Modules, guest: Guest, *, before_driver: bool) -> tuple[str, ...]:
    """The modules that were loaded, of those needs whose turn it is. What the kernel refuses is a remark."""
    served = _served(system, modules)
    loaded: list[str] = []
    for need in NEEDS:
        if need.before_driver is before_driver and need.name in served:
            wanted = tuple(name for name in (*need.where_there, *need.modules) if modules.is_loadable(name))
            if wanted and is_recognised(system, need.signs, guest):
                loaded += [name for name in wanted if _load(modules, name)]
    return tuple(loaded)


def _served(system: Files, modules: Modules) -> tuple[str, ...]:
    path = f"{modules.folder}/{SERVES}"
    if not system.exists(path):
        return NAMES
    names = tuple(system.read(path).decode("ascii", "replace").split())
    modules.remarks += [f"{path}: there is no need called {name[:40]!a}; image and init are of different releases"
                        for name in names if name not in NAMES]
    return names


def _load(modules: Modules, name: str) -> bool:
    try:
        return modules.load_if_there(name)
    except NvrcError as err:
        if err.code != "E_MODULE_DEVICE":  # aesni_intel on a processor without it, tdx_guest on one of AMD's
            modules.remarks.append(err.what)
        return False


def missing_device(system: Files, guest: Guest) -> Need | None:
    """The need whose device a confidential guest should show and does not."""
    return next((need for need in NEEDS if need.device and not system.exists(need.device)
                 and is_recognised(system, need.signs, guest)), None)


def check_tee(system: Files, modules: Modules, guest: Guest) -> tuple[Trouble, ...]:
    """A warning; where guest components are that would attest without the device, the end of the boot."""
    need = missing_device(system, guest)
    if need is None:
        return ()
    module = canonical(next(iter(need.modules)))
    why = ("its driver is in the kernel and made none" if modules.is_present(module)
           else f"the image has no module {module} for this kernel, or the kernel refused it")
    what = f"this is a confidential guest ({need.name}), and {need.device} is missing: {why}"
    if is_recognised(system, COMPONENTS, guest):
        raise NvrcError("E_TEE_DRIVER", what, path=need.device)
    return (make_trouble("E_TEE_DRIVER", what, path=need.device),)
