# SPDX-License-Identifier: Apache-2.0
"""When a row of the boot table applies: claims about facts, nothing else."""

from __future__ import annotations

from nvrc.engine.facts import Facts
from nvrc.vocabulary.mode import Mode


def always(_facts: Facts) -> bool:
    return True


def never(_facts: Facts) -> bool:
    return False


def has_gpus(facts: Facts) -> bool:
    return facts.mode is not None and facts.mode.has_gpus


def has_devices(facts: Facts) -> bool:
    """GPUs, or the switches of a service VM: a driver is needed."""
    return facts.mode is not None and facts.mode is not Mode.CPU


def has_fabric(facts: Facts) -> bool:
    return facts.mode is not None and facts.mode.nvlink is not None


def has_nics(facts: Facts) -> bool:
    """Network functions that containers may have."""
    return facts.topology is not None and bool(facts.topology.nics)


def names_extensions(facts: Facts) -> bool:
    return facts.parameters is not None and bool(facts.parameters.settings.extensions)


def wants_dcgm(facts: Facts) -> bool:
    return has_gpus(facts) and facts.parameters is not None and facts.parameters.settings.dcgm


def awaits_attestation(facts: Facts) -> bool:
    """Whether GPUs are held back until evidence of them was accepted."""
    return has_gpus(facts) and facts.parameters is not None and facts.parameters.settings.is_attested


def starts_early(facts: Facts) -> bool:
    """Whether the agent runs while the GPUs attach."""
    return facts.early is True and has_gpus(facts)


def is_strict(facts: Facts) -> bool:
    return facts.parameters is not None and facts.parameters.settings.strict
