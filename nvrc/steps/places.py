# SPDX-License-Identifier: Apache-2.0
"""Step `places`: where GPUs and NICs are on the bus, for the report and for NCCL. Beside the attach of the GPUs.

From what the kernel shows of the bus in sysfs, once the drivers of NICs are there; no device is opened. NCCL finds the
machine in a file that every container with a GPU gets (nvrc/hardware/nccl.py): what the pod's initdata says of the
host, else what the image knows of this board, else what the bus of the guest shows. What contradicts the bus is a
warning, and the next one is taken.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping
from nvrc.engine.facts import Facts, known, replace
from nvrc.engine.table import LONG
from nvrc.hardware.links import Place, Places, read_places
from nvrc.hardware.nccl import write_topology
from nvrc.hardware.topology import Topology
from nvrc.machine.system import System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble

GUEST, POD = "the bus of the guest", "nccl-topology.xml of initdata"

deadline_s = LONG


def run(system: System, facts: Facts) -> Facts:
    topology = known(facts.topology, "topology")
    places = read_places(system, tuple(one.bdf for one in (*topology.gpus, *topology.nics)))
    source, doubts = _publish(system, facts, topology, places)
    return replace(facts, places=Places(places, source), warnings=(*facts.warnings, *doubts))


def tell(facts: Facts) -> str:
    """`8 GPUs, 2 NICs, NCCL by the bus of the guest`"""
    found, topology = facts.places, facts.topology
    if found is None or topology is None:
        return ""
    gpus = sum(gpu.bdf in found.by_bdf for gpu in topology.gpus)
    return f"{gpus} GPUs, {len(found.by_bdf) - gpus} NICs, NCCL by {found.source}"


def _publish(system: System, facts: Facts, topology: Topology,
             places: Mapping[str, Place]) -> tuple[str, tuple[Trouble, ...]]:
    gpus, nics = ([one.bdf for one in group if one.bdf in places] for group in (topology.gpus, topology.nics))
    source, doubts = "", list[Trouble]()
    text = write_topology((*topology.gpus, *topology.nics), places)
    present = {one.bdf: one.pci_class for group in (topology.gpus, topology.nvswitches, topology.management_nics,
                                                    topology.others) for one in group}
    for name, given in _read_given(system, facts, topology):
        from nvrc.hardware.nccl_given import fill_in  # most boots have none

        try:
            text, source = fill_in(given, name, gpus, nics, present), name
            break
        except NvrcError as err:
            doubts.append(err.trouble)
    try:
        system.make_dir(paths.TOPOLOGY_HOME)
        system.publish(paths.TOPOLOGY_FILE, text)
    except OSError as err:
        raise NvrcError("E_RUN_FULL", f"cannot write {paths.TOPOLOGY_FILE}: {err.strerror}") from err
    return source or GUEST, tuple(doubts)


def _read_given(system: System, facts: Facts, topology: Topology) -> Iterator[tuple[str, bytes]]:
    """What pod and image say, by name, the better first."""
    if facts.pod_topology:
        yield POD, facts.pod_topology.encode()
    path = f"{paths.TOPOLOGY_FILES}/{board_name(topology)}.xml"
    if system.exists(path):
        yield path, system.read(path, (1 << 20) + 1)


def board_name(topology: Topology) -> str:
    """`10de-2330x8`, the name that an image gives to a board of eight of these; mixed boards have every id in it."""
    ids = sorted({f"{gpu.device:04x}" for gpu in topology.gpus})
    return f"10de-{'-'.join(ids)}x{len(topology.gpus)}"
