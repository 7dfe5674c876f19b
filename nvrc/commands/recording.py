# SPDX-License-Identifier: Apache-2.0
"""What `nvrc plan` needs of a machine, copied into a folder, so that the plan can be made elsewhere.

Of PCI functions only their ids are copied, of a network function's VPD only whether it has the mark of a switch's
management port: VPD holds serial numbers.
"""

from __future__ import annotations

import os

from nvrc.hardware.topology import ATTRIBUTE_LIMIT, MELLANOX, VPD_LIMIT, VPD_MARK
from nvrc.machine.system import Readable
from nvrc.vocabulary import paths
from nvrc.vocabulary.jsonread import FormatError

_ATTRIBUTES = ("vendor", "device", "class")
_OTHER_VPD = b"another VPD\n"


def record(system: Readable, folder: str) -> int:
    """How many PCI functions were copied. The folder must be new or empty."""
    os.makedirs(folder, exist_ok=True)
    if os.listdir(folder):
        raise FormatError((f"{folder}: not empty; name a folder to make",))
    for path in (paths.CMDLINE, paths.POLICY):
        _copy(system, path, folder)
    try:
        names = system.list_dir(paths.PCI_DEVICES)
    except FileNotFoundError:
        return 0
    for name in names:
        for attribute in _ATTRIBUTES:
            _copy(system, f"{paths.PCI_DEVICES}/{name}/{attribute}", folder, ATTRIBUTE_LIMIT)
        _note_vpd(system, f"{paths.PCI_DEVICES}/{name}", folder)
    return len(names)


def _copy(system: Readable, path: str, folder: str, limit: int = 1 << 20) -> bytes:
    """What cannot be read is left out, and the plan then says so as the boot would."""
    try:
        data = system.read(path, limit)
    except OSError:
        return b""
    _write(folder, path, data)
    return data


def _note_vpd(system: Readable, function: str, folder: str) -> None:
    try:
        if int(system.read(f"{function}/vendor", ATTRIBUTE_LIMIT), 16) != MELLANOX:
            return
        vpd = system.read(f"{function}/vpd", VPD_LIMIT)
    except (OSError, ValueError):
        return
    _write(folder, f"{function}/vpd", VPD_MARK if VPD_MARK in vpd else _OTHER_VPD)


def _write(folder: str, path: str, data: bytes) -> None:
    target = folder + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(data)
