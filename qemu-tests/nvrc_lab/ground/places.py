# SPDX-License-Identifier: Apache-2.0
"""Where the lab reads and writes, on one page. Everything it makes lies below out/, which git ignores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "out" / "cache"

    @property
    def accel(self) -> Path:
        return self.cache / "accel.json"

    @property
    def scenarios(self) -> Path:
        return self.root / "qemu-tests" / "scenarios"

    @property
    def runs(self) -> Path:
        return self.root / "out" / "lab"

    @property
    def reports(self) -> Path:
        return self.root / "out" / "test"


def checkout() -> Places:
    """The checkout that this package lies in; the lab is never installed anywhere else."""
    return Places(root=Path(__file__).resolve().parents[3])
