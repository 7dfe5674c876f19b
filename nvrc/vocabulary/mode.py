# SPDX-License-Identifier: Apache-2.0
"""What kind of machine a VM is: the answer of the scan, and what the rest of the boot goes by."""

from __future__ import annotations

from guest_cdi.lean.light import Enum


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
