# SPDX-License-Identifier: Apache-2.0
"""What became of one GPU, from the scan to the end of the machine."""

from __future__ import annotations

from guest_cdi.lean.light import Enum, dataclass


class GpuState(Enum):
    SEEN = "seen"
    REGISTERED = "registered"
    ATTACHED = "attached"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRecord:
    bdf: str
    uuid: str = ""
    state: GpuState = GpuState.SEEN
    code: str = ""
    seconds: float | None = None

    @property
    def place(self) -> str:
        return name_place(self.bdf, self.uuid)


def name_place(bdf: str, uuid: str) -> str:
    """`0000:41:00.0 (GPU-...)`, as far as it is known: how every sentence names a GPU."""
    return f"{bdf} ({uuid})" if uuid else bdf
