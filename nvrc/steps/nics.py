# SPDX-License-Identifier: Apache-2.0
"""Step `nics`: the network functions that containers may have, once their drivers are loaded.

Then their CDI documents are published.

The drivers probe while they are loaded; what comes a little later, by the kernel's auxiliary bus, is waited for. A
fault of a NIC is a warning, and that NIC is withheld.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Mapping
from nvrc.engine.facts import Facts, FailedWithFacts, known, replace
from nvrc.engine.table import LONG
from nvrc.hardware.nics import COMMUNICATION, Nic, read_nics, read_nodes, remarks, unsettled
from nvrc.hardware.topology import NETWORK
from nvrc.machine.privileges import DOCUMENTS, prepare
from nvrc.machine.system import Node, System
from nvrc.machine.uevents import wait_until_complete
from nvrc.nvml.worker import Request, Value, start_worker
from nvrc.vocabulary.errors import NvrcError

SETTLE_S = 5.0  # without news
PUBLISH_S = 15.0

deadline_s = LONG


def run(system: System, facts: Facts) -> Facts:
    found = look(system, facts)
    try:
        publish_documents(system, describe(system, found))
    except NvrcError as err:
        raise FailedWithFacts(err, found) from err  # the agent may show what was found all the same
    return found


def look(system: System, facts: Facts) -> Facts:
    functions = known(facts.topology, "topology").nics
    wait_until_complete(system, lambda: unsettled(system, functions), SETTLE_S)
    nics = read_nics(system, functions)
    faults = tuple(nic.fault for nic in nics if nic.fault)
    return replace(facts, nics=nics, warnings=(*facts.warnings, *faults, *remarks(nics)))


def describe(system: System, facts: Facts) -> Mapping[str, Value]:
    """What the worker makes the documents of: every function that Kata counts, the nodes of those that are given."""
    topology, nics = known(facts.topology, "topology"), facts.nics or ()
    verbs = {nic.bdf: (nic.verbs, *_numbers(nic.node)) for nic in nics if nic.is_given and nic.node}
    rows = [(nic.bdf, nic.rdma, verbs.get(nic.bdf)) for nic in nics]
    rows += [(function.bdf, "", None) for function in topology.management_nics if function.pci_class >> 8 in NETWORK]
    common = dict(read_nodes(system, nics)).get(COMMUNICATION)
    return {"functions": rows, "common": (COMMUNICATION, *_numbers(common)) if common else None}


def publish_documents(system: System, described: Mapping[str, Value],
                      rows: Callable[[], Mapping[str, Request]] | None = None) -> None:
    """In a worker that is forked for it: PID 1 loads nothing of what makes documents."""
    def requests() -> Mapping[str, Request]:
        from nvrc.nvml.nics import make_requests

        return make_requests()

    prepare(system, DOCUMENTS, "E_NVML_CRASH")
    try:
        worker = start_worker(system, rows or requests, DOCUMENTS)
    except OSError as err:
        raise NvrcError("E_NVML_CRASH", f"the worker could not be forked: {err.strerror}",
                        "give the VM more memory") from err
    try:
        worker.ask("nics", PUBLISH_S, **described)
    finally:
        worker.stop()


def _numbers(node: Node) -> tuple[int, int]:
    return node.major, node.minor


def tell(facts: Facts) -> str:
    """`0000:70:00.0 RoCE VF mlx5_0 eth1, 0000:71:00.0 withheld`"""
    return ", ".join(map(_words, facts.nics or ()))


def _words(nic: Nic) -> str:
    if nic.fault:
        return f"{nic.bdf} withheld"
    return " ".join((nic.bdf, nic.kind, *filter(None, (nic.rdma,)), *nic.netdevs))
