# SPDX-License-Identifier: Apache-2.0
"""Step `links`: NVLinks and peer access of the GPUs, from NVIDIA's library, for the report."""

from __future__ import annotations

from guest_cdi.lean.light import Mapping
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, known, replace
from nvrc.hardware.links import Links, Pair, Place, ancestor
from nvrc.machine.system import System
from nvrc.nvml.answers import LinkCount, PairState
from nvrc.nvml.client import SPARE_S
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.gpu import name_place
from nvrc.vocabulary.trouble import Trouble

PEER = {0: "ok", 1: "not by this chipset", 2: "not by this GPU", 3: "not across I/O hubs", 4: "disabled",
        5: "not supported", 6: "unknown", -1: ""}


def run(_system: System, facts: Facts) -> Facts:
    topology, places = known(facts.topology, "topology"), facts.places.by_bdf if facts.places else {}
    counts, states = client_of(facts).links(facts.usable)
    links = {count.number: count for count in counts}
    known_gpus = {gpu.number: gpu.bdf for gpu in facts.gpus or () if gpu.bdf in places and gpu.number in links}
    pairs = tuple(_pair(state, known_gpus, places, links) for state in states
                  if state.one in known_gpus and state.other in known_gpus)
    devices = {gpu.bdf: gpu.device for gpu in topology.gpus}
    nvlinks = tuple((bdf, one.active, _required(facts, bdf, devices.get(bdf, 0)))
                    for one in links.values() if (bdf := known_gpus.get(one.number)))
    return replace(facts, links=Links(nvlinks, pairs), warnings=(*facts.warnings, *_missing(facts, nvlinks)))


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`8 GPUs, 18 NVLinks each`"""
    found = facts.links
    if found is None:
        return ""
    counts = sorted({active for _, active, _ in found.nvlinks})
    links = f", {' or '.join(map(str, counts))} NVLinks each" if counts and counts != [0] else ""
    return f"{len(found.nvlinks)} GPUs{links}"


def _pair(state: PairState, known_gpus: Mapping[int, str], places: Mapping[str, Place],
          links: Mapping[int, LinkCount]) -> Pair:
    one, other = known_gpus[state.one], known_gpus[state.other]
    first, second = links[state.one], links[state.other]
    by_switch = min(first.switched, second.switched) if state.nvlink == 0 else 0
    return Pair(one, other, ancestor(places[one], places[other]), first.peers.count(other) + by_switch,
                PEER.get(state.read, f"status {state.read}"), PEER.get(state.write, f"status {state.write}"))


def _required(facts: Facts, bdf: str, device: int) -> int:
    """How many links this product has to the switches, where it is registered with them."""
    if not any(one.gpu == bdf and one.is_good for one in facts.fabric or ()):
        return 0
    from nvrc.vocabulary.products import NVLINKS  # most machines have no board with switches

    return NVLINKS.get(device, 0)


def _missing(facts: Facts, nvlinks: tuple[tuple[str, int, int], ...]) -> tuple[Trouble, ...]:
    uuids = {gpu.bdf: gpu.uuid for gpu in facts.gpus or ()}
    return tuple(make_trouble("E_NVLINK_COUNT", f"GPU {name_place(bdf, uuids.get(bdf, ''))}: {active} of {required} "
                              "NVLinks are active", gpu=bdf, uuid=uuids.get(bdf, ""))
                 for bdf, active, required in nvlinks if active < required)
