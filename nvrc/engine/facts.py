# SPDX-License-Identifier: Apache-2.0
"""What the boot knows so far. A step receives Facts and returns them with its own findings added, nothing else.

Each field is written by exactly one step; the executor refuses a second writer. A field that no step has filled
yet is None, and that is the only meaning of None here. `services` and `warnings` are shared: steps append to them.
Facts answer what steps ask of them again and again; a question before its step has run is a defect of the table.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping, TypeVar, dataclass, replace
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.hardware.gpu_files import Told
    from nvrc.hardware.links import Links, Places
    from nvrc.hardware.nics import Nic
    from nvrc.hardware.topology import Topology
    from nvrc.machine.journal import Journal
    from nvrc.machine.ports import Ports
    from nvrc.nvml.answers import Applied, CdiMade, MigMade, NvmlGpu
    from nvrc.nvml.judge import Confidential
    from nvrc.nvml.promised import Promise
    from nvrc.nvml.readiness import Ready
    from nvrc.nvml.registration import Registration
    from nvrc.nvml.worker import Worker
    from nvrc.params.parse import Parsed
    from nvrc.params.settings import Settings
    from nvrc.services.table import Running
    from nvrc.vocabulary.gpu import GpuRecord
    from nvrc.vocabulary.mode import Mode
    from nvrc.vocabulary.trouble import Trouble

__all__ = ["Facts", "FailedWithFacts", "merge", "replace"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    journal: Journal | None = None
    unhardened: tuple[str, ...] | None = None
    policy: str | None = None
    initdata: str | None = None
    pod_topology: str | None = None
    verifier: str | None = None
    parameters: Parsed | None = None
    early: bool | None = None
    topology: Topology | None = None
    mode: Mode | None = None
    agent_pid: int | None = None
    ports: Ports | None = None
    metrics_listener: int | None = None
    extensions: tuple[str, ...] | None = None
    gpu_root: str | None = None
    modules: tuple[str, ...] | None = None
    agent_modules: tuple[str, ...] | None = None
    device_nodes: tuple[str, ...] | None = None
    promise: Promise | None = None
    nics: tuple[Nic, ...] | None = None
    places: Places | None = None
    ledger: tuple[GpuRecord, ...] | None = None
    told: Mapping[str, Told] | None = None
    worker: Worker | None = None
    gpus: tuple[NvmlGpu, ...] | None = None
    gpu_settings: tuple[Applied, ...] | None = None
    mig: tuple[MigMade, ...] | None = None
    confidential: Confidential | None = None
    cc_checked: tuple[str, ...] | None = None
    fabric: tuple[Registration, ...] | None = None
    links: Links | None = None
    cdi: CdiMade | None = None
    keys: str | None = None
    ready: Ready | None = None
    services: tuple[Running, ...] = ()
    warnings: tuple[Trouble, ...] = ()

    @property
    def settings(self) -> Settings:
        """What the command line asks for."""
        return known(self.parameters, "parameters").settings

    @property
    def on_bus(self) -> tuple[str, ...]:
        """Bus ids of the GPUs that the scan found."""
        return tuple(gpu.bdf for gpu in self.topology.gpus) if self.topology else ()

    @property
    def driver_root(self) -> str:
        """What paths of the driver's files begin with: where the GPU extension is, "" without one."""
        return self.gpu_root or ""

    @property
    def usable(self) -> tuple[int, ...]:
        """The numbers of the GPUs that answer."""
        return tuple(gpu.number for gpu in self.gpus or () if not gpu.error)

    @property
    def nvml_patience_s(self) -> float:
        """How long one question to NVIDIA's library may take."""
        return self.patience_s(self.settings.timeout_nvml_s)

    def patience_s(self, limit_s: float) -> float:
        """A limit, and the allowance for each GPU of the machine on top."""
        return limit_s + self.settings.timeout_per_gpu_s * len(self.on_bus)


def known(value: T | None, step: str) -> T:
    """A fact that `needs` has put before the step that asks for it."""
    if value is None:
        raise LookupError(f"a fact of step {step!r} was asked for before that step has run")
    return value


class FailedWithFacts(NvrcError):  # noqa: N818 - says what it is
    """Raised by a step that failed and found something all the same: the report shows it."""

    def __init__(self, error: NvrcError, facts: Facts) -> None:
        super().__init__(error.code, error.what, error.hint, error.details)
        self.trouble = error.trouble
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
