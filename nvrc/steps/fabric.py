# SPDX-License-Identifier: Apache-2.0
"""Step `fabric`: the daemons that set up NVSwitches, on machines that have any. Waits until they are ready.

The subnet manager where the switches need one, then the fabric manager.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, FailedWithFacts, known, replace
from nvrc.machine.system import Files, System
from nvrc.params.claims import fabric_mode, rail_policy
from nvrc.services.fabric_config import write_config
from nvrc.services.launch import launch
from nvrc.services.subnet import find_port
from nvrc.services.table import FABRIC_MANAGER, SUBNET_MANAGER, Running
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

SLACK_S = 10.0  # the step itself keeps time and says more than "deadline"


def run(system: System, facts: Facts) -> Facts:
    machine = known(facts.mode, "topology")
    root, journal = facts.driver_root, facts.journal
    write_config(system, root, known(fabric_mode(machine), "topology"), known(rail_policy(machine), "topology"))
    services: tuple[Running, ...] = ()
    guid = ""
    if machine.nvlink == 5:
        nics = known(facts.topology, "topology").management_nics
        guid = find_port(system, tuple(function.bdf for function in nics))
        _make_folder(system)
        services = (launch(system, SUBNET_MANAGER, _subnet_limit_s(facts), root=root, journal=journal,
                           values={"guid": guid}),)
    found = replace(facts, services=(*facts.services, *services))
    try:
        manager = launch(system, FABRIC_MANAGER, _fabric_limit_s(facts), root=root, journal=journal,
                         values={"guid": guid})
    except NvrcError as err:
        raise FailedWithFacts(err, found) from err  # the subnet manager is up, and has to be stopped
    return replace(found, services=(*found.services, manager))


def deadline_s(facts: Facts) -> float:
    return SLACK_S + _subnet_limit_s(facts) + _fabric_limit_s(facts)


def tell(facts: Facts) -> str:
    """`nvlsm, nv-fabricmanager`, for the step's console line."""
    return ", ".join(running.service.name for running in facts.services if running.service.step == "fabric")


def _make_folder(system: Files) -> None:
    """Where the subnet manager puts the socket that the fabric manager talks to it by."""
    folder = paths.FABRIC_FOLDER
    try:
        system.make_dir(folder)
    except OSError as err:
        raise NvrcError("E_NVLSM", f"cannot create {folder}: {err.strerror}",
                        "make /var/run a link to /run in the image") from err


def _subnet_limit_s(facts: Facts) -> float:
    return float(facts.settings.timeout_nvlsm_s) if facts.mode and facts.mode.nvlink == 5 else 0.0


def _fabric_limit_s(facts: Facts) -> float:
    return facts.patience_s(facts.settings.timeout_fabric_s)
