# SPDX-License-Identifier: Apache-2.0
"""The live state after the boot, as /run/nvrc/status.json: verdict, services, GPU health. docs/boot-report.md."""

from __future__ import annotations

from guest_cdi.lean.light import Enum, dataclass
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.jsontext import encode
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Verdict

SCHEMA = 2


class ServiceState(Enum):
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    name: str
    state: ServiceState
    pid: int | None = None
    restarts: int = 0
    since_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class XidRecord:
    """How often the driver has told this number of a GPU, named by its bus id."""

    gpu: str
    number: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    schema: int = SCHEMA
    program: str
    verdict: Verdict
    mode: str = ""
    updated_s: float
    resident_kib: int | None = None
    failure: Trouble | None = None
    degraded_by: tuple[Trouble, ...] = ()
    services: tuple[ServiceRecord, ...] = ()
    gpus: tuple[GpuRecord, ...] = ()
    xids: tuple[XidRecord, ...] = ()
    ready: str = ""
    orphans_reaped: int = 0
    log_messages: int = 0
    log_dropped: int = 0
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()


def to_json(status: Status) -> bytes:
    return encode(status)


def from_json(data: bytes) -> Status:
    """Strict: every problem of the document at once, as jsonread.FormatError. Reads schema 1 as well."""
    from nvrc.report.schema1 import raise_status
    from nvrc.vocabulary.jsonread import decode

    return decode(Status, data, SCHEMA, {1: raise_status})
