# SPDX-License-Identifier: Apache-2.0
"""Brings the NVLink fabric up: the subnet manager where the switches need one, then the fabric manager."""

from __future__ import annotations

import posixpath

from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.machine.system import System
from nvrc.params.claims import fabric_mode, rail_policy
from nvrc.services.launch import launch
from nvrc.services.table import FABRIC_MANAGER, SUBNET_MANAGER, Running
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError


def bring_up(system: System, facts: Facts) -> Facts:
    from nvrc.services.fabric_config import write_config
    from nvrc.services.subnet import find_port

    assert facts.mode is not None and facts.topology is not None  # noqa: S101 - `needs` puts topology before
    root = facts.gpu_root or ""
    mode, rail = fabric_mode(facts.mode), rail_policy(facts.mode)
    assert mode is not None and rail is not None  # noqa: S101 - `when` holds only for modes with a fabric
    write_config(system, root, mode, rail)
    services: tuple[Running, ...] = ()
    guid = ""
    if facts.mode.nvlink == 5:
        guid = find_port(system, tuple(function.bdf for function in facts.topology.management_nics))
        _make_folder(system)
        services = (launch(system, facts, SUBNET_MANAGER, subnet_limit_s(facts), {"guid": guid}),)
    found = replace(facts, services=(*facts.services, *services))
    try:
        manager = launch(system, facts, FABRIC_MANAGER, fabric_limit_s(facts), {"guid": guid})
    except NvrcError as err:
        raise FailedWithFacts(err, found) from err  # the subnet manager is up, and has to be stopped
    return replace(found, services=(*found.services, manager))


def _make_folder(system: System) -> None:
    """Where the subnet manager puts the socket that the fabric manager talks to it by."""
    folder = posixpath.dirname(paths.SUBNET_SOCKET)
    try:
        system.make_dir(folder)
    except OSError as err:
        raise NvrcError("E_NVLSM", f"cannot create {folder}: {err.strerror}",
                        "make /var/run a link to /run in the image") from err


def subnet_limit_s(facts: Facts) -> float:
    assert facts.parameters is not None  # noqa: S101 - `needs` puts it before
    return float(facts.parameters.settings.timeout_nvlsm_s) if facts.mode and facts.mode.nvlink == 5 else 0.0


def fabric_limit_s(facts: Facts) -> float:
    assert facts.parameters is not None and facts.topology is not None  # noqa: S101 - `needs` puts them before
    settings = facts.parameters.settings
    return settings.timeout_fabric_s + settings.timeout_per_gpu_s * len(facts.topology.gpus)
