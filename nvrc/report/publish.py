# SPDX-License-Identifier: Apache-2.0
"""Writes the boot report and the live status below /run/nvrc, from what PID 1 knows. Off the critical path."""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, Protocol
from nvrc import __version__
from nvrc.engine.executor import Executor, Record
from nvrc.engine.facts import Facts
from nvrc.engine.ledger import ledger_of
from nvrc.machine.journal import Journal
from nvrc.machine.system import Files, Kernel, System
from nvrc.report import findings, links, networks, report, status
from nvrc.report.report import ParameterRecord, Report, SpanRecord, StepRecord
from nvrc.report.status import ServiceRecord, Status, XidRecord
from nvrc.report.troubles import list_troubles
from nvrc.vocabulary import paths
from nvrc.vocabulary.ending import Ending
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.trouble import Trouble
from nvrc.vocabulary.verdict import Outcome, Verdict

LIBRARY_SCAN = "library scan"
# From an initramfs, and from a disk.
INIT_MESSAGES = (b"Run /init as init process", b"Run /sbin/init as init process")


class Living(Protocol):
    """What is known about the VM after the hand-over; see life.Life."""

    @property
    def agent(self) -> ServiceRecord: ...
    @property
    def orphans_reaped(self) -> int: ...
    @property
    def ending(self) -> Ending | None: ...
    @property
    def services(self) -> tuple[ServiceRecord, ...]: ...
    @property
    def gpus(self) -> tuple[GpuRecord, ...]: ...
    @property
    def xids(self) -> tuple[XidRecord, ...]: ...
    @property
    def ready(self) -> str: ...
    @property
    def news(self) -> tuple[Trouble, ...]: ...


def describe(system: System, executor: Executor, *, started_s: float, verdict: Verdict, journal: Journal,
             failure: Trouble | None = None, cpu_s: float | None = None) -> Report:
    """The boot as things stand now."""
    return describe_boot(executor.facts, executor.records, verdict=verdict, started_s=started_s,
                         log_tail=journal.tail(report.LOG_TAIL_LINES), failure=failure,
                         interpreter_s=_interpreter_s(system, executor.records, started_s), cpu_s=cpu_s,
                         resident_kib=read_resident_kib(system))


def write(system: System, boot: Report, document: bytes, *, journal: Journal, life: Living | None) -> None:
    """The report, as `document`, and the status that goes with it."""
    system.publish(paths.REPORT, document, 0o600)
    system.publish(paths.STATUS, status.to_json(describe_life(boot, journal, life, system.now())), 0o600)


def write_status(system: System, executor: Executor, *, verdict: Verdict, journal: Journal,
                 life: Living | None) -> None:
    """The live status alone."""
    system.publish(paths.STATUS, live_status(system, executor, verdict=verdict, journal=journal, life=life), 0o600)


def live_status(system: System, executor: Executor, *, verdict: Verdict, journal: Journal,
                life: Living | None) -> bytes:
    """The status as of now, for the file and for whoever asks."""
    boot = describe_boot(executor.facts, executor.records, verdict=verdict, started_s=0.0, log_tail=(),
                         interpreter_s=None, resident_kib=read_resident_kib(system))
    return status.to_json(describe_life(boot, journal, life, system.now()))


def read_resident_kib(system: Files) -> int | None:
    """Resident memory of this process; None where /proc does not tell."""
    try:
        lines = system.read(paths.OWN_STATUS).decode("ascii", "replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)


def describe_boot(facts: Facts, records: tuple[Record, ...], *, verdict: Verdict, started_s: float,
                  interpreter_s: float | None, log_tail: tuple[str, ...], failure: Trouble | None = None,
                  cpu_s: float | None = None, resident_kib: int | None = None) -> Report:
    failed = next((record.trouble for record in records if record.outcome == Outcome.FAIL.value), None)
    degraded = tuple(record.trouble for record in records
                     if record.outcome == Outcome.WARN.value and record.trouble is not None)
    troubles, notes = _sort(facts.warnings)
    return Report(
        program=f"nvrc {__version__}",
        verdict=verdict,
        mode=facts.mode.value if facts.mode else "",
        failure=failure or failed,
        started_s=started_s,
        interpreter_s=interpreter_s,
        cpu_s=cpu_s,
        resident_kib=resident_kib,
        ended_s=max((record.end_s for record in records), default=None),
        steps=tuple(_step(record) for record in records),
        beside=_beside(facts),
        policy=facts.policy or "",
        parameters=_parameters(facts),
        topology=report.record_topology(facts.topology) if facts.topology else (),
        gpus=ledger_of(facts) or (),
        settings=findings.record_settings(facts),
        mig=findings.record_mig(facts),
        confidential=findings.record_confidential(facts),
        nics=networks.record_nics(facts),
        fabric=networks.record_fabric(facts),
        places=links.record_places(facts),
        pairs=links.record_pairs(facts),
        cdi=findings.record_cdi(facts),
        ready=findings.record_ready(facts),
        troubles=degraded + troubles,
        notes=notes,
        log=log_tail,
    )


def describe_life(boot: Report, journal: Journal, life: Living | None, now: float) -> Status:
    gpus = (life.gpus if life else ()) or boot.gpus
    troubles, notes = _sort(life.news if life else ())
    return Status(
        program=boot.program,
        verdict=boot.verdict,
        mode=boot.mode,
        updated_s=now,
        resident_kib=boot.resident_kib,
        failure=_failure_of_life(life) or boot.failure,
        degraded_by=list_troubles(boot.steps, gpus, life.services, boot.troubles + troubles) if life else (),
        services=(life.agent, *life.services) if life else (),
        gpus=gpus,
        xids=life.xids if life else (),
        ready=life.ready if life else "",
        orphans_reaped=life.orphans_reaped if life else 0,
        log_messages=journal.serial,
        log_dropped=journal.file_losses,
        troubles=boot.troubles + troubles,
        notes=boot.notes + notes,
    )


def _sort(told: tuple[Trouble, ...]) -> tuple[tuple[Trouble, ...], tuple[str, ...]]:
    """What has a code, and what is worth knowing only."""
    return tuple(one for one in told if one.code), tuple(one.what for one in told if not one.code)


def _failure_of_life(life: Living | None) -> Trouble | None:
    ending = life.ending if life else None
    return ending if isinstance(ending, Trouble) else None


def _step(record: Record) -> StepRecord:
    begun = record.outcome != Outcome.PENDING.value
    return StepRecord(name=record.name, outcome=Outcome(record.outcome), start_s=record.start_s if begun else None,
                      end_s=record.end_s if begun else None, waited_s=record.waited_s if begun else None,
                      detail=record.detail, code=record.trouble.code if record.trouble else "")


def _beside(facts: Facts) -> tuple[SpanRecord, ...]:
    """What went on beside the steps, where somebody has told of it."""
    warmed = facts.worker.warmed if facts.worker else None
    return (SpanRecord(name=LIBRARY_SCAN, start_s=warmed[0], end_s=warmed[1]),) if warmed else ()


def _parameters(facts: Facts) -> tuple[ParameterRecord, ...]:
    if facts.parameters is None:
        return ()
    return tuple(ParameterRecord(name=name, value=value, source=source.value)
                 for name, value, source in facts.parameters.described())


def _interpreter_s(system: Kernel, records: tuple[Record, ...], started_s: float) -> float | None:
    first = records[0]
    return interpreter_seconds(system.kernel_records(), started_s=started_s, anchor=f"nvrc: step {first.name} ",
                               anchor_s=first.end_s)


def interpreter_seconds(kmsg: Iterable[bytes], *, started_s: float, anchor: str, anchor_s: float) -> float | None:
    """From the kernel's exec of its init to `started_s`; None when the kernel's message about it is gone.

    The kernel stamps messages with another clock than the boot clock. `anchor`, a line that PID 1 said itself at
    `anchor_s`, tells how far they are apart.
    """
    executed_s, apart_s = None, None
    for record in kmsg:
        head, _, text = record.partition(b";")
        if text.startswith(INIT_MESSAGES):
            executed_s = _stamp_s(head)
        elif text.startswith(anchor.encode()):
            apart_s = anchor_s - _stamp_s(head)
            break
    if executed_s is None or apart_s is None:
        return None
    return max(0.0, started_s - (executed_s + apart_s))


def _stamp_s(head: bytes) -> float:
    return int(head.split(b",")[2]) / 1e6
