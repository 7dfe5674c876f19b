# SPDX-License-Identifier: Apache-2.0
"""The boot report: the boot table with times filled in, and what the boot found. Written to /run/nvrc/boot.json.

Versioned: a field that is added, removed or changes its meaning raises SCHEMA. All moments are seconds of the
kernel's boot clock, which starts with the kernel, so the time before PID 1 is `started_s` less `interpreter_s`.
Strings that name nothing are empty; None means "not known" or "not yet". docs/boot-report.md describes every field,
and a test compares.
"""

from __future__ import annotations

from guest_cdi.lean.light import Enum, dataclass
from nvrc.hardware.topology import Topology
from nvrc.report.findings import CdiRecord, ConfidentialRecord, MigRecord, ReadyRecord, SettingRecord
from nvrc.report.links import PairRecord, PlaceRecord
from nvrc.report.networks import FabricRecord, NicRecord
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.jsontext import encode
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

__all__ = [
    "LOG_TAIL_LINES", "SCHEMA", "FunctionRecord", "Outcome", "ParameterRecord",
    "Report", "Role", "SpanRecord", "StepRecord", "Verdict", "from_json", "record_topology", "to_json",
]

SCHEMA = 2
LOG_TAIL_LINES = 200


class Role(Enum):
    GPU = "gpu"
    NVSWITCH = "nvswitch"
    MANAGEMENT_NIC = "management-nic"
    NIC = "nic"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    name: str
    outcome: Outcome = Outcome.PENDING
    start_s: float | None = None
    end_s: float | None = None
    waited_s: float | None = None
    detail: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRecord:
    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRecord:
    bdf: str
    ids: str
    pci_class: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    schema: int = SCHEMA
    program: str
    verdict: Verdict = Verdict.BOOTING
    mode: str = ""
    failure: Trouble | None = None
    started_s: float
    interpreter_s: float | None = None
    ended_s: float | None = None
    cpu_s: float | None = None
    resident_kib: int | None = None
    steps: tuple[StepRecord, ...] = ()
    beside: tuple[SpanRecord, ...] = ()
    policy: str = ""
    parameters: tuple[ParameterRecord, ...] = ()
    topology: tuple[FunctionRecord, ...] = ()
    gpus: tuple[GpuRecord, ...] = ()
    settings: tuple[SettingRecord, ...] = ()
    mig: tuple[MigRecord, ...] = ()
    confidential: ConfidentialRecord | None = None
    nics: tuple[NicRecord, ...] = ()
    fabric: tuple[FabricRecord, ...] = ()
    places: tuple[PlaceRecord, ...] = ()
    pairs: tuple[PairRecord, ...] = ()
    cdi: CdiRecord | None = None
    ready: ReadyRecord | None = None
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


def to_json(report: Report) -> bytes:
    return encode(report)


def from_json(data: bytes) -> Report:
    """Strict: every problem of the document at once, as jsonread.FormatError. Reads schema 1 as well."""
    from nvrc.report.schema1 import raise_report
    from nvrc.vocabulary.jsonread import decode

    return decode(Report, data, SCHEMA, {1: raise_report})


def record_topology(topology: Topology) -> tuple[FunctionRecord, ...]:
    rest = tuple(function for function in topology.others if not function.is_nic)
    groups = ((Role.GPU, topology.gpus), (Role.NVSWITCH, topology.nvswitches),
              (Role.MANAGEMENT_NIC, topology.management_nics), (Role.NIC, topology.nics),
              (Role.OTHER, rest))
    return tuple(FunctionRecord(bdf=f.bdf, ids=f"{f.vendor:04x}:{f.device:04x}", pci_class=f"{f.pci_class:06x}",
                                role=role) for role, functions in groups for f in functions)
