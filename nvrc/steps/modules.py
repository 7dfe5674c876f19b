# SPDX-License-Identifier: Apache-2.0
"""Step `modules`: the drivers that the machine's mode needs, then every GPU of the bus in the driver's own list.

What agent and containers need is loaded by the step `lock-modules`, beside the driver's attach of the GPUs; only what
the driver itself asks the kernel for during that attach comes here, before it.

nvidia-modeset, nvidia-drm and nvidia-peermem have no row: nothing here needs a display, and each is attack surface.
Loading returns when the driver has probed, but nothing promises that it lists a GPU by then.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, NamedTuple
from nvrc.engine.facts import Facts, replace
from nvrc.hardware.module_failure import kernel_words
from nvrc.hardware.modules import Modules
from nvrc.hardware.needs import Guest, load_needs
from nvrc.machine.system import Files, Kernel, System
from nvrc.machine.uevents import wait_until_complete
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.trouble import Trouble, remark

GPUS = f"{paths.NVIDIA_PROC}/gpus"


def _nothing(_facts: Facts) -> str:
    return ""


def _nvlink_off(facts: Facts) -> str:
    """A single GPU of a board with NVLink would wait for peers that were not passed through."""
    return "NVreg_NvLinkDisable=1" if len(facts.on_bus) == 1 else ""


def _uvm_options(facts: Facts) -> str:
    given = facts.settings.uvm_options
    return " ".join(f"{name}={value}" for name, value in given.pairs) if given else ""


class Row(NamedTuple):
    """A module and the modes it is for. `signs`: what sysfs shows of it when it is built in and has no parameters."""

    module: str
    modes: tuple[Mode, ...]
    options: Callable[[Facts], str] = _nothing
    signs: tuple[str, ...] = ()


_WITH_GPUS = (Mode.GPU, Mode.GPU_NVL4, Mode.GPU_NVL5)
_NVL5 = (Mode.GPU_NVL5, Mode.SERVICE_NVL5)

TABLE: tuple[Row, ...] = (
    Row("nvidia", (*_WITH_GPUS, Mode.SERVICE_NVL4), _nvlink_off),
    Row("nvidia-uvm", _WITH_GPUS, _uvm_options),
    Row("ib_umad", _NVL5, signs=("/sys/class/infiniband_mad",)),
    Row("mlx5_ib", _NVL5, signs=("/sys/bus/auxiliary/drivers/mlx5_ib.rdma",)),
)


def run(system: System, facts: Facts) -> Facts:
    modules = Modules(system, gpu_root=facts.driver_root, options=facts.settings.module_options)
    rows = [row for row in TABLE if facts.mode in row.modes]
    if facts.on_bus:
        load_needs(system, modules, read_guest(facts), before_driver=True)
    for row in rows:
        modules.load(row.module, row.options(facts), row.signs)
    absent = _wait_for_gpus(system, facts)
    return replace(facts, modules=tuple(row.module for row in rows),
                   warnings=facts.warnings + tuple(map(remark, modules.remarks)) + absent)


def read_guest(facts: Facts) -> Guest:
    """What needs are recognised by, of what is known of the machine."""
    return Guest(facts.extensions or (), bool(facts.on_bus), bool(facts.topology and facts.topology.nics))


def patience_s(facts: Facts) -> float:
    """How long the driver may list nothing new."""
    return facts.patience_s(facts.settings.timeout_modules_s)


def deadline_s(facts: Facts) -> float:
    """For the whole step: loading as long as any program, then the wait."""
    return facts.settings.timeout_command_s + patience_s(facts)


def tell(facts: Facts) -> str:
    return " ".join(facts.modules or ())


def _wait_for_gpus(system: System, facts: Facts) -> tuple[Trouble, ...]:
    """What to warn about when not every GPU came, and `nvrc.gpus` is content with those that did."""
    on_bus = facts.on_bus

    def missing() -> tuple[str, ...]:
        listed = _listed(system) if on_bus else ()
        return tuple(bdf for bdf in on_bus if bdf not in listed)

    left = wait_until_complete(system, missing, patience_s(facts))
    if not left:
        return ()
    seen = ", ".join(f"{bdf} ({_state(system, bdf)})" for bdf in left)
    what = (f"the driver lists {len(on_bus) - len(left)} of {len(on_bus)} GPUs after {patience_s(facts):g} s without "
            f"progress; missing: {seen}")
    if not facts.settings.gpus.holds(len(on_bus) - len(left), len(on_bus)):
        raise NvrcError("E_GPU_PROBE", what, details=_kernel_words(system))
    return (make_trouble("E_GPU_PROBE", what, gpu=left[0] if len(left) == 1 else ""),)


def _listed(system: Files) -> tuple[str, ...]:
    try:
        return system.list_dir(GPUS)
    except FileNotFoundError:
        return ()
    except OSError as err:
        raise NvrcError("E_GPU_PROBE", f"the driver's list of GPUs, {GPUS}: {err.strerror}") from err


def _state(system: Files, bdf: str) -> str:
    if not system.exists(f"{paths.PCI_DEVICES}/{bdf}"):
        return "gone from the bus"
    if system.exists(f"/sys/bus/pci/drivers/nvidia/{bdf}"):
        return "bound to nvidia, not listed"
    return "bound to another driver" if system.exists(f"{paths.PCI_DEVICES}/{bdf}/driver") else "its probe failed"


def _kernel_words(system: Kernel) -> tuple[str, ...]:
    return kernel_words(system, "nvidia")
