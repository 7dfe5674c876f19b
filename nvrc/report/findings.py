# SPDX-License-Identifier: Apache-2.0
"""What a boot found out about its GPUs beside their state: settings, MIG, confidential mode, CDI document, ready state.

Records of the report, and how they are made of the facts. A fact that no step has filled is None here as well.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, dataclass

if TYPE_CHECKING:
    from nvrc.engine.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRecord:
    """`got`: None where the GPU does not say."""

    gpu: str
    name: str
    asked: int
    got: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigRecord:
    gpu: str
    profiles: tuple[str, ...] = ()
    changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidentialRecord:
    mode: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiRecord:
    version: str
    driver: str
    devices: int
    nodes: int
    mounts: int
    hooks: int
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRecord:
    outcome: str
    accepts: bool
    why: str


def record_settings(facts: Facts) -> tuple[SettingRecord, ...]:
    return tuple(SettingRecord(gpu=_bus_id(facts, row.number), name=_parameter(row.setting),
                               asked=row.asked, got=None if row.got < 0 else row.got)
                 for row in facts.gpu_settings or ())


def record_mig(facts: Facts) -> tuple[MigRecord, ...]:
    return tuple(MigRecord(gpu=_bus_id(facts, row.number), profiles=row.profiles, changed=row.changed)
                 for row in facts.mig or ())


def record_confidential(facts: Facts) -> ConfidentialRecord | None:
    found = facts.confidential
    return ConfidentialRecord(mode=found.mode.value, why=found.why) if found else None


def record_cdi(facts: Facts) -> CdiRecord | None:
    made = facts.cdi
    if made is None:
        return None
    return CdiRecord(version=made.version, driver=made.driver, devices=made.devices, nodes=made.nodes,
                     mounts=made.mounts, hooks=made.hooks, missing=made.missing, left_out=made.left_out)


def record_ready(facts: Facts) -> ReadyRecord | None:
    found = facts.ready
    return ReadyRecord(outcome=found.outcome.value, accepts=found.accepts, why=found.why) if found else None


def _parameter(field: str) -> str:
    """A field of Settings as the command line spells it."""
    from nvrc.params.table import PARAMS  # who only reads reports needs no parameters

    return next((row.name for row in PARAMS if row.field == field), field)


def _bus_id(facts: Facts, number: int) -> str:
    return next((gpu.bdf for gpu in facts.gpus or () if gpu.number == number), "")
