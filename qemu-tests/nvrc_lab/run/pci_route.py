# SPDX-License-Identifier: Apache-2.0
"""Where the virtual functions of a machine come from: from inside the guest (route a), or from outside (route b).

Route a is lab_pci.ko and needs nothing of QEMU. Route b are vfio-user servers that QEMU attaches as devices of its own,
with BARs that the firmware places, behind bridges whose buses get the numbers that scenarios name. What a
scenario does to /proc/lab-pci on route a, the lab does to the servers, told by a line of the console.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from nvrc_lab.devices.vfio_user import Server, serve
from nvrc_lab.devices.virtual_function import Description, VirtualFunction, parse_functions
from nvrc_lab.ground.errors import LabError
from nvrc_lab.scenario.faults import collect_effects
from nvrc_lab.scenario.hardware import describe_functions, place_gpus
from nvrc_lab.scenario.values import Scenario

EVENTS, MODULES, HARDWARE = "/lab/events", "/lab/modules", "/lab/lab_pci.ko"
CONTROL, TOLD = "write /proc/lab-pci ", "say lab-pci "
_HEARD = "probe: say lab-pci off "


class Route(Enum):
    A = "a"
    B = "b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What of the machine lives beside QEMU: nothing, on route a."""

    devices: tuple[str, ...] = ()
    servers: Mapping[str, Server] = field(default_factory=dict)

    def hear(self, lines: Sequence[str]) -> None:
        """The hand in the guest asks for what only we can do: a function falls off the bus when its server goes."""
        for line in lines:
            server = self.servers.get(line.partition(_HEARD)[2].strip())
            if server is not None:
                server.close()


def move_out(texts: Mapping[str, str]) -> Mapping[str, str]:
    """The lab's files for a machine that has no lab_pci.ko and no /proc/lab-pci."""
    moved = {path: text.replace(CONTROL, TOLD) if path == EVENTS else text for path, text in texts.items()}
    kept = [line for line in moved.pop(MODULES, "").splitlines() if not line.startswith(HARDWARE)]
    return {**moved, MODULES: "".join(f"{line}\n" for line in kept)} if kept else moved


@contextlib.contextmanager
def attach(route: Route, scenario: Scenario, folder: Path) -> Iterator[Outside]:
    if route is Route.A:
        yield Outside()
        return
    if scenario.machine.bridged:
        raise LabError("bridged machines have a PCI domain of their own, which QEMU's machine has not", "--route a")
    text = describe_functions(scenario, place_gpus(scenario.machine), collect_effects(scenario).keys)
    rows = parse_functions(text)
    with serve({row.bdf: VirtualFunction(row) for row in rows}, folder) as servers:
        yield Outside(devices=make_devices(rows, {bdf: one.path for bdf, one in servers.items()}), servers=servers)


def make_devices(rows: Sequence[Description], sockets: Mapping[str, Path]) -> tuple[str, ...]:
    """QEMU's -device words: bridges so that each bus gets the number it is described with, then the functions."""
    buses = sorted({row.bus for row in rows})
    wide = {row.bus for row in rows if row.slot}
    shared = {(row.bus, row.slot) for row in rows if row.function}
    return (*_make_bridges(buses, wide),
            *(json.dumps({"driver": "vfio-user-pci", "bus": f"bus{row.bus:02x}",
                          "addr": f"{row.slot:x}.{row.function}", "multifunction": (row.bus, row.slot) in shared,
                          "socket": {"type": "unix", "path": str(sockets[row.bdf])}}) for row in rows))


def _make_bridges(buses: Sequence[int], wide: Set[int]) -> Iterator[str]:
    """A root bus one below each run of buses, with a bridge for each: the firmware numbers what is behind in order.

    A port of PCI Express has one slot. A bus with more of them is a plain PCI bus, and its functions have no extended
    configuration space, so no mailbox either.
    """
    root = -1
    for number, bus in enumerate(buses):
        if bus - 1 not in buses:
            root = bus - 1
            yield f"pxb-pcie,id=root{root:02x},bus_nr={root},bus=pcie.0"
        where = f"id=bus{bus:02x},bus=root{root:02x},addr={bus - root - 1:x}"
        yield (f"pcie-pci-bridge,{where}" if bus in wide else
               f"pcie-root-port,{where},chassis={number + 1},slot={number + 1},io-reserve=0")
