# SPDX-License-Identifier: Apache-2.0
"""What the generator asks about GPUs: two questions, answered by NVML in production and by three lines in a test.

nvml.py holds the binding to libnvidia-ml. The order of `gpus` is NVML's index order, by PCI bus id; it is neither
the order of minor numbers nor that of the PCI scan.
"""

from __future__ import annotations

from guest_cdi.lean.light import Protocol, Sequence, dataclass

# Display-only boards that NVML lists beside the compute GPUs of a workstation; never offered to containers.
DISPLAY_ONLY = frozenset({"DGX Display", "NVIDIA DGX Display"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mig:
    """A MIG device: `index` counts among the devices of its GPU, `gi` and `ci` are its instance ids."""

    index: int
    uuid: str
    gi: int
    ci: int
    gfx: bool = False       # the GPU instance profile has the graphics attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as NVML describes it. `error` names the call that failed; the fields not yet known then are empty."""

    index: int
    uuid: str = ""
    name: str = ""
    minor: int = -1
    bus_id: str = ""        # as NVML spells it, e.g. 00000000:41:00.0
    mig_enabled: bool = False
    mig_capable: bool = False
    migs: tuple[Mig, ...] = ()
    error: str | None = None


class Nvml(Protocol):
    """An open NVML. A failure that concerns the whole machine is a CdiError; one GPU's failure is in its `error`."""

    def driver_version(self) -> str: ...
    def gpus(self) -> Sequence[Gpu]: ...
