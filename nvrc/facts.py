# SPDX-License-Identifier: Apache-2.0
"""What the boot knows so far. A step receives Facts and returns them with its own findings added, nothing else.

Each field is written by exactly one step; the executor refuses a second writer. A field that no step has filled
yet is None, and that is the only meaning of None here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvrc.params import Parsed
    from nvrc.topology import Topology

__all__ = ["Facts", "Mode", "replace"]


class Mode(Enum):
    CPU = "cpu"
    GPU = "gpu"
    GPU_NVL4 = "gpu-nvl4"
    GPU_NVL5 = "gpu-nvl5"
    SERVICE_NVL4 = "servicevm-nvl4"
    SERVICE_NVL5 = "servicevm-nvl5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    parameters: Parsed | None = None
    hostname: str | None = None
    topology: Topology | None = None
    modules_locked: bool | None = None
    notes: tuple[str, ...] = field(default=())
