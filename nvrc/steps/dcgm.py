# SPDX-License-Identifier: Apache-2.0
"""Step `dcgm`: DCGM's host engine and exporter, if the command line asks for them and the image has them.

Never worth the VM: without them the boot is degraded, not over. Stock images have neither the exporter nor its
counters file, so each is asked for before a program is started that could only fail.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.machine.system import Files, System
from nvrc.services.launch import launch
from nvrc.services.table import EXPORTER, HOST_ENGINE, Service
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

SLACK_S = 10.0  # the step itself keeps time and says more than "deadline"


def run(system: System, facts: Facts) -> Facts:
    """Both, or E_DCGM, which degrades. A host engine that runs without its exporter is looked after all the same."""
    limit_s, root, journal = float(facts.settings.timeout_command_s), facts.driver_root, facts.journal
    lacking = _what_is_missing(system, root, HOST_ENGINE)
    if lacking:
        raise NvrcError("E_DCGM", f"no DCGM: {lacking}")
    engine = launch(system, HOST_ENGINE, limit_s, root=root, journal=journal)
    found = replace(facts, services=(*facts.services, engine))
    lacking = _what_is_missing(system, root, EXPORTER)
    if not lacking:
        try:
            exporter = launch(system, EXPORTER, limit_s, root=root, journal=journal)
        except NvrcError as err:
            lacking = err.what
        else:
            return replace(found, services=(*found.services, exporter))
    raise FailedWithFacts(NvrcError("E_DCGM", f"no DCGM exporter: {lacking}"), found)


def deadline_s(facts: Facts) -> float:
    return SLACK_S + 2 * facts.settings.timeout_command_s


def tell(facts: Facts) -> str:
    """`nv-hostengine, dcgm-exporter`, for the step's console line."""
    return ", ".join(running.service.name for running in facts.services if running.service.step == "dcgm")


def _what_is_missing(system: Files, root: str, service: Service) -> str:
    """What the image lacks for this program, empty if nothing."""
    path = root + service.path
    if not system.exists(path, executable=True):
        return f"{path} is not in the image"
    if service is EXPORTER and not system.exists(paths.DCGM_COUNTERS):
        return f"{paths.DCGM_COUNTERS} is not in the image"
    return ""
