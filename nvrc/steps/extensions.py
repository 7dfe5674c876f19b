# SPDX-License-Identifier: Apache-2.0
"""Step `extensions`: images on disks of their own, verified, mounted, and the GPU one made part of the system.

Runs on every boot: a disk that claims to be an extension and has no parameters ends the boot even when the command
line names none. Disks that it names are waited for.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING
from nvrc.engine.facts import Facts, replace
from nvrc.extensions.disks import BLOCK_DEVICE, absent, find_disks, has_controller, reconcile
from nvrc.hardware.modules import Modules
from nvrc.machine.linux import MS_NODEV, MS_NOSUID, MS_RDONLY
from nvrc.machine.system import System
from nvrc.machine.uevents import wait_until_complete
from nvrc.machine.wait import OverdueError
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import remark

if TYPE_CHECKING:
    from nvrc.extensions.disks import Pair
    from nvrc.params.settings import Settings

# What a kernel needs for extensions and may have as modules; one that has it built in leaves no trace of some of it.
STORAGE = ("virtio_blk", "dm_verity", "erofs")
FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV  # programs are run from there, so not MS_NOEXEC
EROFS_MAGIC_AT, EROFS_MAGIC = 1024, bytes.fromhex("e2e1f5e0")
GPU = "gpu"


def run(system: System, facts: Facts) -> Facts:
    settings = facts.settings
    remarks = _await_disks(system, settings) if settings.extensions or has_controller(system, BLOCK_DEVICE) else ()
    pairs = reconcile(find_disks(system), settings.extensions)
    roots = {pair.extension.name: mount_patiently(system, pair, settings) for pair in pairs}
    gpu_root = roots.get(GPU, "")
    if gpu_root:
        from nvrc.extensions.gpu import join  # what most boots go without

        join(system, gpu_root, settings.timeout_command_s)
    return replace(facts, extensions=tuple(roots), gpu_root=gpu_root,
                   warnings=facts.warnings + tuple(map(remark, remarks)))


def deadline_s(facts: Facts) -> float:
    """Loading modules, verifying and the loader's cache, and three signs of progress to wait for per extension."""
    settings = facts.settings
    return 2 * settings.timeout_command_s + settings.timeout_extensions_s * (1 + 3 * len(settings.extensions))


def tell(facts: Facts) -> str:
    return " ".join(facts.extensions or ())


def _await_disks(system: System, settings: Settings) -> tuple[str, ...]:
    """Load what disks need, and wait for those that are named; what there is to remark about it."""
    modules = Modules(system, options=settings.module_options)
    for name in STORAGE if settings.extensions else STORAGE[:1]:
        modules.load_if_there(name)
    wait_until_complete(system, lambda: absent(find_disks(system), settings.extensions), settings.timeout_extensions_s)
    return tuple(modules.remarks)


def mount_patiently(system: System, pair: Pair, settings: Settings, answer_s: float | None = None) -> str:
    """Where the extension is mounted."""
    from nvrc.machine.patience import DISK_ANSWER_S, run_within

    limit_s = DISK_ANSWER_S if answer_s is None else answer_s
    try:
        return run_within(limit_s, lambda: _mount(system, pair, settings))
    except OverdueError as err:
        raise NvrcError("E_EXTENSION_DEVICE", f'extension "{pair.extension.name}": its disk does not answer within '
                        f"{limit_s:g} s", "find on the host why the disk does not answer") from err


def _mount(system: System, pair: Pair, settings: Settings) -> str:
    from nvrc.extensions.verity import FOLDER, device_name, open_verity  # what most boots go without

    name = pair.extension.name
    first = open_verity(system, pair, settings.verity_corruption)
    if first[EROFS_MAGIC_AT:EROFS_MAGIC_AT + len(EROFS_MAGIC)] != EROFS_MAGIC:
        raise NvrcError("E_EXTENSION_MOUNT", f'extension "{name}": its verified data are not an EROFS file system')
    target = f"{paths.EXTENSIONS}/{name}"
    try:
        system.make_dir(target)
        system.mount(f"{FOLDER}/{device_name(pair)}", target, "erofs", FLAGS)
    except OSError as err:
        what = f'extension "{name}": cannot mount it on {target}: {err.strerror}'
        raise NvrcError("E_EXTENSION_MOUNT", what) from err
    return target
