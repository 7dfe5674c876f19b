# SPDX-License-Identifier: Apache-2.0
"""What the driver's own files below /proc say of each GPU."""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, NamedTuple
from nvrc.machine.system import Files
from nvrc.vocabulary import paths

INFORMATION_LIMIT = 1 << 16


class Told(NamedTuple):
    """What the driver's own file says of a GPU; "" for what it does not say."""

    uuid: str
    minor: str


def read_driver(system: Files, bdfs: Iterable[str]) -> dict[str, Told]:
    rows = {bdf: read_information(system, bdf) for bdf in bdfs}
    return {bdf: Told("" if "?" in row.get("GPU UUID", "?") else row["GPU UUID"], row.get("Device Minor", ""))
            for bdf, row in rows.items()}


def read_information(system: Files, bdf: str) -> dict[str, str]:
    """The items of a GPU's file below /proc, without those of a driver that has none."""
    try:
        text = system.read(f"{paths.GPU_PROC}/{bdf}/information", INFORMATION_LIMIT).decode("utf-8", "replace")
    except OSError:
        return {}
    rows = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}
