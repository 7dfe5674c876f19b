# SPDX-License-Identifier: Apache-2.0
"""Step `links`: the paths between GPUs and NICs, for the report and for NCCL.

PCI from sysfs, NVLinks and peer access from NVIDIA's library. NCCL finds the machine in a file that every container
with a GPU gets (nvrc/hardware/nccl.py): what the pod's initdata says of the host, else what the image knows of this
board, else what the bus of the guest shows. What contradicts the bus is a warning, and the next one is taken.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, known, replace
from nvrc.hardware.links import Links, Pair, Place, ancestor, read_places
from nvrc.hardware.nccl import write_topology
from nvrc.hardware.topology import Topology
from nvrc.machine.system import System
from nvrc.nvml.answers import LinkCount, PairState
from nvrc.nvml.client import SPARE_S
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.gpu import name_place
from nvrc.vocabulary.products import NVLINKS
from nvrc.vocabulary.trouble import Trouble

GUEST, POD = "the bus of the guest", "nccl-topology.xml of initdata"
PEER = {0: "ok", 1: "not by this chipset", 2: "not by this GPU", 3: "not across I/O hubs", 4: "disabled",
        5: "not supported", 6: "unknown", -1: ""}


def run(system: System, facts: Facts) -> Facts:
    topology = known(facts.topology, "topology")
    places = read_places(system, tuple(one.bdf for one in (*topology.gpus, *topology.nics)))
    counts, states = client_of(facts).links(facts.usable)
    by_number = {gpu.number: gpu.bdf for gpu in facts.gpus or ()}
    pairs = tuple(_pair(state, by_number, places, counts) for state in states if _is_known(state, by_number, places))
    devices = {gpu.bdf: gpu.device for gpu in topology.gpus}
    nvlinks = tuple((bdf, one.active, _required(facts, bdf, devices.get(bdf, 0)))
                    for one in counts if (bdf := by_number.get(one.number, "")) in places)
    source, doubts = _publish(system, facts, topology, places)
    return replace(facts, links=Links(tuple(places.values()), nvlinks, pairs, source),
                   warnings=(*facts.warnings, *doubts, *_missing(facts, nvlinks)))


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`8 GPUs, 2 NICs, 18 NVLinks each, NCCL by the bus of the guest`"""
    found = facts.links
    if found is None:
        return ""
    counts = sorted({active for _, active, _ in found.nvlinks})
    links = f"{' or '.join(map(str, counts))} NVLinks each, " if counts and counts != [0] else ""
    return f"{len(found.nvlinks)} GPUs, {len(found.places) - len(found.nvlinks)} NICs, {links}NCCL by {found.source}"


def _is_known(state: PairState, by_number: dict[int, str], places: Mapping[str, Place]) -> bool:
    return all(by_number.get(number, "") in places for number in (state.one, state.other))


def _pair(state: PairState, by_number: dict[int, str], places: Mapping[str, Place],
          counts: tuple[LinkCount, ...]) -> Pair:
    one, other = by_number[state.one], by_number[state.other]
    first, second = (next(count for count in counts if count.number == number) for number in (state.one, state.other))
    by_switch = min(first.switched, second.switched) if state.nvlink == 0 else 0
    return Pair(one, other, ancestor(places[one], places[other]), first.peers.count(other) + by_switch,
                PEER.get(state.read, f"status {state.read}"), PEER.get(state.write, f"status {state.write}"))


def _required(facts: Facts, bdf: str, device: int) -> int:
    """How many links this product has to the switches, where it is registered with them."""
    is_on_board = any(one.gpu == bdf and one.is_good for one in facts.fabric or ())
    return NVLINKS.get(device, 0) if is_on_board else 0


def _missing(facts: Facts, nvlinks: tuple[tuple[str, int, int], ...]) -> tuple[Trouble, ...]:
    uuids = {gpu.bdf: gpu.uuid for gpu in facts.gpus or ()}
    return tuple(make_trouble("E_NVLINK_COUNT", f"GPU {name_place(bdf, uuids.get(bdf, ''))}: {active} of {required} "
                              "NVLinks are active", gpu=bdf, uuid=uuids.get(bdf, ""))
                 for bdf, active, required in nvlinks if active < required)


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
