# SPDX-License-Identifier: Apache-2.0
"""Whether the GPUs of a board have registered with the NVLink fabric, from NVML's numbers. Pure.

A GPU on NVSwitches runs no CUDA work before its registration is completed with success: a program gets error 802. A GPU
without such a fabric says "not supported", and that is no matter of this. Numbers are those of nvml.h.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple, Sequence, replace
from nvrc.nvml.answers import FabricState
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble

NOT_KNOWN, NOT_SUPPORTED, NOT_STARTED, IN_PROGRESS, COMPLETED = -1, 0, 1, 2, 3
STATES = {NOT_SUPPORTED: "not supported", NOT_STARTED: "not started", IN_PROGRESS: "in progress",
          COMPLETED: "completed"}
# Return codes of NVML that a registration ends with.
STATUSES = {0: "success", 3: "not supported", 4: "no permission", 9: "driver not loaded", 10: "timeout",
            15: "GPU is lost", 16: "reset required", 23: "insufficient resources", 999: "unknown error"}
NO_CLUSTER = "0" * 32


class Registration(NamedTuple):
    """One GPU with a fabric. `state` and `status` in words; `cluster` is empty where the fabric has no UUID."""

    gpu: str
    uuid: str
    state: str
    status: str
    clique: int
    cluster: str
    is_good: bool

    @property
    def words(self) -> str:
        return f"{self.state}, {self.status}"


def is_settled(states: Sequence[FabricState]) -> bool:
    """Whether none of them can change by waiting."""
    return not any(one.state in (NOT_STARTED, IN_PROGRESS) for one in states)


def read_registrations(states: Sequence[FabricState], places: dict[int, tuple[str, str]]) -> tuple[Registration, ...]:
    """Of those that have a fabric. `places`: bus id and UUID by number."""
    return tuple(Registration(*places[one.number], STATES.get(one.state, f"unknown state {one.state}"), _status(one),
                              one.clique, "" if one.cluster == NO_CLUSTER else one.cluster,
                              one.state == COMPLETED and one.status == 0)
                 for one in states if one.state not in (NOT_SUPPORTED, NOT_KNOWN))


def _status(one: FabricState) -> str:
    """It means something once the registration is completed."""
    return STATUSES.get(one.status, f"status {one.status}") if one.state == COMPLETED else "no status yet"


def find_faults(found: Sequence[Registration]) -> tuple[Trouble, ...]:
    return tuple(make_trouble("E_FABRIC_STATE", f"GPU {one.gpu}" + (f" ({one.uuid})" if one.uuid else "")
                              + f": its registration with the NVLink fabric is {one.words}", gpu=one.gpu, uuid=one.uuid)
                 for one in found if not one.is_good)


def find_cliques(found: Sequence[Registration]) -> tuple[Trouble, ...]:
    """A warning where registered GPUs cannot reach each other over NVLink."""
    groups: dict[tuple[str, int], list[str]] = {}
    for one in found:
        if one.is_good:
            groups.setdefault((one.cluster, one.clique), []).append(one.gpu)
    if len(groups) < 2:
        return ()
    seen = "; ".join(f"clique {clique}" + (f" of cluster {cluster}" if cluster else "") + f": {', '.join(gpus)}"
                     for (cluster, clique), gpus in sorted(groups.items()))
    return (make_trouble("E_FABRIC_CLIQUE", f"the GPUs are in {len(groups)} cliques of the NVLink fabric ({seen})"),)


def tell_changes(before: Sequence[Registration], now: Sequence[Registration]) -> tuple[Trouble, ...]:
    """What is news after the boot: a GPU that left the fabric, or came back to it."""
    known = {one.gpu: one for one in before}
    left = [one for one in now if one.gpu in known and known[one.gpu].is_good and not one.is_good]
    news = [replace(fault, step=AFTER_THE_BOOT) for fault in find_faults(left)]
    for one in now:
        old = known.get(one.gpu)
        if old is None or old == one or one in left:
            continue
        was = f"{old.words}, clique {old.clique}"
        what = (f"GPU {one.gpu}: its registration with the NVLink fabric is {one.words}, clique {one.clique}; "
                f"it was {was}")
        news.append(Trouble(code="", what=what, gpu=one.gpu, uuid=one.uuid))
    return tuple(news)
