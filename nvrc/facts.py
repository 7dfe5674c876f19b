# SPDX-License-Identifier: Apache-2.0
"""What the boot knows so far. A step receives Facts and returns them with its own findings added, nothing else.

Each field is written by exactly one step; the executor refuses a second writer. A field that no step has filled
yet is None, and that is the only meaning of None here. `services` and `warnings` are shared: steps append to them.
"""

from __future__ import annotations

from guest_cdi.light import TYPE_CHECKING, Enum, dataclass, replace
from nvrc.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.confidential import Confidential
    from nvrc.journal import Journal
    from nvrc.nvml_answers import Applied, CdiMade, MigMade, NvmlGpu
    from nvrc.params import Parsed
    from nvrc.report import GpuRecord
    from nvrc.services import Running
    from nvrc.steps.ready_state import Ready
    from nvrc.topology import Topology
    from nvrc.worker import Worker

__all__ = ["Facts", "FailedWithFacts", "Mode", "merge", "replace"]


class Mode(Enum):
    CPU = "cpu"
    GPU = "gpu"
    GPU_NVL4 = "gpu-nvl4"
    GPU_NVL5 = "gpu-nvl5"
    SERVICE_NVL4 = "servicevm-nvl4"
    SERVICE_NVL5 = "servicevm-nvl5"

    @property
    def has_gpus(self) -> bool:
        return self in (Mode.GPU, Mode.GPU_NVL4, Mode.GPU_NVL5)

    @property
    def is_service_vm(self) -> bool:
        return self in (Mode.SERVICE_NVL4, Mode.SERVICE_NVL5)

    @property
    def nvlink(self) -> int | None:
        """The NVLink generation whose switches this VM has to run, None without any."""
        return _NVLINK.get(self)


_NVLINK = {Mode.GPU_NVL4: 4, Mode.SERVICE_NVL4: 4, Mode.GPU_NVL5: 5, Mode.SERVICE_NVL5: 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    journal: Journal | None = None
    parameters: Parsed | None = None
    hostname: str | None = None
    loopback_up: bool | None = None
    topology: Topology | None = None
    mode: Mode | None = None
    modules_locked: bool | None = None
    agent_pid: int | None = None
    extensions: tuple[str, ...] | None = None
    gpu_root: str | None = None
    modules: tuple[str, ...] | None = None
    agent_modules: tuple[str, ...] | None = None
    device_nodes: tuple[str, ...] | None = None
    ledger: tuple[GpuRecord, ...] | None = None
    worker: Worker | None = None
    gpus: tuple[NvmlGpu, ...] | None = None
    gpu_settings: tuple[Applied, ...] | None = None
    mig: tuple[MigMade, ...] | None = None
    confidential: Confidential | None = None
    cc_checked: tuple[str, ...] | None = None
    cdi: CdiMade | None = None
    ready: Ready | None = None
    services: tuple[Running, ...] = ()
    warnings: tuple[str, ...] = ()


class FailedWithFacts(NvrcError):  # noqa: N818 - says what it is
    """Raised by a step that failed and found something all the same: the report shows it."""

    def __init__(self, error: NvrcError, facts: Facts) -> None:
        super().__init__(error.code, error.what, error.hint, error.details)
        self.facts = facts


SHARED = ("services", "warnings")


def merge(current: Facts, given: Facts, returned: Facts) -> Facts:
    """Add to `current` what a step found, where `given` is what it started from. Steps may have run side by side."""
    changes: dict[str, object] = {}
    for name in Facts.__slots__:
        old, new = getattr(given, name), getattr(returned, name)
        if new is old:
            continue
        if name in SHARED:
            changes[name] = getattr(current, name) + new[len(old):]
        elif getattr(current, name) is not None:
            raise ValueError(f"fact {name!r} has two writers")
        else:
            changes[name] = new
    return replace(current, **changes)  # type: ignore[arg-type]  # names and values come from Facts itself
