# SPDX-License-Identifier: Apache-2.0
"""Step `dcgm`: GPU telemetry, if the command line asks for it. A helper: without it the boot is degraded, not over."""

from __future__ import annotations

from nvrc.engine.facts import Facts
from nvrc.machine.system import System

SLACK_S = 10.0  # the step itself keeps time and says more than "deadline"


def bring_up(system: System, facts: Facts) -> Facts:
    from nvrc.services import dcgm

    return dcgm.bring_up(system, facts)


def deadline(facts: Facts) -> float:
    assert facts.parameters is not None  # noqa: S101 - `needs` puts it before
    return SLACK_S + 2 * facts.parameters.settings.timeout_command_s


def tell(facts: Facts) -> str:
    """`nv-hostengine, dcgm-exporter`, for the step's console line."""
    return ", ".join(running.service.name for running in facts.services if running.service.step == "dcgm")
