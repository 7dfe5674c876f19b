# SPDX-License-Identifier: Apache-2.0
"""Where the lab reads and writes, on one page. All that it makes lies below out/, in the checkout or working folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    root: Path
    working: Path | None = None  # None: the checkout

    @property
    def out(self) -> Path:
        return (self.working or self.root) / "out"

    @property
    def cache(self) -> Path:
        return self.out / "cache"

    @property
    def accel(self) -> Path:
        return self.cache / "accel.json"

    @property
    def scenarios(self) -> Path:
        return self.root / "qemu-tests" / "scenarios"

    @property
    def runs(self) -> Path:
        return self.out / "lab"

    @property
    def reports(self) -> Path:
        return self.out / "test"


def checkout(package: Path = PACKAGE) -> Places:
    """The checkout that this package lies in. An installed lab reads what the wheel carries of it, and writes here."""
    root = package.parents[1]
    if (root / "qemu-tests").is_dir():
        return Places(root=root)
    return Places(root=package.parent / "nvrc_tree", working=Path.cwd())
