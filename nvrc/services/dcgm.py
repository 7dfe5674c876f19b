# SPDX-License-Identifier: Apache-2.0
"""Starts DCGM's host engine and exporter where the image has them. Never worth the VM: what is missing is said.

Stock images have neither the exporter nor its counters file nor the host engine's account, so each is asked for before
a program is started that could only fail.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.machine.system import System
from nvrc.services.launch import launch
from nvrc.services.table import EXPORTER, HOST_ENGINE, Service
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError


def bring_up(system: System, facts: Facts) -> Facts:
    """Both, or E_DCGM, which degrades. A host engine that runs without its exporter is looked after all the same."""
    assert facts.parameters is not None  # noqa: S101 - `needs` puts it before
    limit_s = float(facts.parameters.settings.timeout_command_s)
    lacking = what_is_missing(system, facts, HOST_ENGINE)
    if lacking:
        raise NvrcError("E_DCGM", f"no DCGM: {lacking}")
    engine = launch(system, facts, HOST_ENGINE, limit_s)
    found = replace(facts, services=(*facts.services, engine))
    lacking = what_is_missing(system, facts, EXPORTER)
    if not lacking:
        try:
            exporter = launch(system, facts, EXPORTER, limit_s)
        except NvrcError as err:
            lacking = err.what
        else:
            return replace(found, services=(*found.services, exporter))
    raise FailedWithFacts(NvrcError("E_DCGM", f"no DCGM exporter: {lacking}"), found)


def what_is_missing(system: System, facts: Facts, service: Service) -> str:
    """What the image lacks for this program, empty if nothing."""
    path = (facts.gpu_root or "") + service.path
    if not system.exists(path, executable=True):
        return f"{path} is not in the image"
    if service is EXPORTER and not system.exists(paths.DCGM_COUNTERS):
        return f"{paths.DCGM_COUNTERS} is not in the image"
    if service.account and not has_account(system, service.account):
        return f"{paths.ACCOUNTS} has no account {service.account}"
    return ""


def has_account(system: System, name: str) -> bool:
    try:
        lines = system.read(paths.ACCOUNTS).split(b"\n")
    except OSError:
        return False
    return any(line.startswith(name.encode() + b":") for line in lines)
