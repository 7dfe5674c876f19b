# SPDX-License-Identifier: Apache-2.0
"""Has nvidia-persistenced attach every GPU, and believes only what it says about each of them.

It is the first client of the GPUs and holds the one attach that a confidential GPU has, so it is never killed while it
is at work, whatever else goes wrong. The end of the process that was started says that the daemon is up; the lines per
device say which GPUs are; the deadline starts anew with each of them.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable, Collection, Iterable, NamedTuple, partial, replace
from nvrc.hardware.gpu_files import read_information
from nvrc.machine.journal import Journal
from nvrc.machine.system import System
from nvrc.machine.wait import ChildEnded, Events, OverdueError
from nvrc.params.values import GpuCount
from nvrc.services.launch import ended_early
from nvrc.services.ledger import Ledger, lines_about
from nvrc.services.lineage import Speaker, speaks_for
from nvrc.services.signatures import explain
from nvrc.services.table import PERSISTENCED, Running, read_pid, start
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import GpuRecord, GpuState

if TYPE_CHECKING:
    from nvrc.machine.journal import Line

    Hear = Callable[[Line], bool]

LAST_WORDS_S = 1.0  # of silence: lines that were sent before the process ended are read after, a flood of them slowly


class Attached(NamedTuple):
    """nvidia-persistenced at work, and what it told of each GPU."""

    running: Running
    ledger: tuple[GpuRecord, ...]
    warnings: tuple[str, ...]


class AttachError(NvrcError):
    """Not enough GPUs came up; the ledger says how far it got."""

    def __init__(self, error: NvrcError, ledger: tuple[GpuRecord, ...]) -> None:
        super().__init__(error.code, error.what, error.hint, error.details)
        self.ledger = ledger


def attach(system: System, on_bus: Iterable[str], wanted: GpuCount, *, patience_s: float, uvm: bool, root: str,
           journal: Journal | None) -> Attached:
    """`patience_s`: how long it may take until the next GPU has attached or failed."""
    ledger = Ledger(on_bus)
    try:
        running, said = _run_daemon(system, ledger, patience_s=patience_s, uvm=uvm, root=root, journal=journal)
        excluded = {record.bdf for record in ledger.pending
                    if _information(system, record.bdf, "GPU Excluded") == "Yes"}
        warnings = judge(ledger, said, wanted, system.now(), excluded)
    except NvrcError as err:
        raise AttachError(err, _records(system, ledger)) from err
    return Attached(running, _records(system, ledger), warnings)


def _run_daemon(system: System, ledger: Ledger, *, patience_s: float, uvm: bool, root: str,
                journal: Journal | None) -> tuple[Running, list[str]]:
    """The daemon once it has tried every GPU, and what was said meanwhile."""
    _make_folder(system)
    said: list[str] = []
    with Events(system, patience_s, journal) as events:
        program, pid = start(system, PERSISTENCED, root, events.ended, {"uvm": "on" if uvm else ""})
        hear = partial(_hear, system, ledger, said, Speaker(PERSISTENCED, program, pid, events.started_s))
        _follow(events, system, ledger, said, hear)
        _hear_the_rest(events, ledger, hear)
    daemon = read_pid(system, PERSISTENCED)
    if daemon is None:
        raise NvrcError("E_PERSISTENCED_START", f"nvidia-persistenced left no pid in {paths.PERSISTENCED_PID}")
    return Running(service=PERSISTENCED, program=program, started_pid=pid, pid=daemon, since_s=events.started_s), said


def _records(system: System, ledger: Ledger) -> tuple[GpuRecord, ...]:
    return tuple(_with_uuid(system, record) for record in ledger.records)


def _make_folder(system: System) -> None:
    try:
        system.make_dir(paths.PERSISTENCED_RUN)
    except OSError as err:
        raise NvrcError("E_PERSISTENCED_START", f"cannot create {paths.PERSISTENCED_RUN}: {err.strerror}",
                        "make /var/run a link to /run in the image") from err


def _hear(system: System, ledger: Ledger, said: list[str], speaker: Speaker, line: Line) -> bool:
    """Whether a GPU got further. What others say may explain a failure; for the daemon speaks only the daemon."""
    said.append(line.text)
    return speaks_for(system, line, speaker) and ledger.hear(line, system.now())


def _follow(events: Events, system: System, ledger: Ledger, said: list[str], hear: Hear) -> None:
    """Until the process that was started has ended well; it does so when the daemon has tried every GPU."""
    try:
        while True:
            event = events.take()
            if isinstance(event, ChildEnded):
                if not event.is_success:
                    raise ended_early(PERSISTENCED, event, events, said)
                return
            if hear(event):
                events.progress()
    except OverdueError as overdue:
        raise _stalled(ledger, overdue, said, system.now()) from overdue


def _hear_the_rest(events: Events, ledger: Ledger, hear: Hear) -> None:
    """Lines are read beside the ends of processes, so the last ones may come after the end."""
    if ledger.pending:
        for event in events.until_silent(LAST_WORDS_S):
            if not isinstance(event, ChildEnded):
                hear(event)
            if not ledger.pending:
                break


def _stalled(ledger: Ledger, overdue: OverdueError, said: list[str], now: float) -> NvrcError:
    wedged = next((record.bdf for record in ledger.pending if record.state is GpuState.REGISTERED), "")
    where = f"{wedged} does not come up" if wedged else "the daemon is at work on none"
    found = explain(lines_about(wedged, said, (record.bdf for record in ledger.records))) if wedged else None
    return NvrcError("E_PERSISTENCED_STALL",
                     f"{ledger.tell(now)}, no progress for {overdue.silent_s:.1f} s; {where}",
                     found.advice if found else "")


def judge(ledger: Ledger, said: list[str], wanted: GpuCount, now: float,
          excluded: Collection[str] = ()) -> tuple[str, ...]:
    """A sentence per GPU that is not attached, as warnings if enough are; else the failure that they are."""
    silent = {record.bdf for record in ledger.pending}
    ledger.close()
    failed = [record for record in ledger.records if record.state is GpuState.FAILED]
    bdfs = [record.bdf for record in ledger.records]
    about = {record.bdf: explain(lines_about(record.bdf, said, bdfs)) for record in failed}
    sentences = tuple(
        f"GPU {bdf} {'was never tried' if bdf in silent else 'failed to attach'}"
        + (": the driver's own options exclude it" if bdf in excluded else f": {why.cause}" if why else "")
        for bdf, why in about.items())
    if wanted.holds(len(ledger.attached), len(bdfs)):
        return tuple(f"E_GPU_ATTACH {sentence}" for sentence in sentences)
    if not failed:
        raise NvrcError("E_GPU_COUNT", f"{len(bdfs)} GPUs are there and attached, and nvrc.gpus={wanted.text()} wants "
                                       "otherwise", "correct nvrc.gpus, or the devices that are passed to the VM")
    what = "; ".join((f"{ledger.tell(now)}, and nvrc.gpus={wanted.text()} wants otherwise", *sentences))
    reason = next((why for why in about.values() if why), None)
    raise NvrcError((reason and reason.code) or "E_GPU_ATTACH", what, reason.advice if reason else "")


def _with_uuid(system: System, record: GpuRecord) -> GpuRecord:
    """The driver knows a GPU's UUID once it is attached; before that the file says only question marks."""
    if record.state is not GpuState.ATTACHED:
        return record
    uuid = _information(system, record.bdf, "GPU UUID")
    return replace(record, uuid="" if "?" in uuid else uuid)


def _information(system: System, bdf: str, item: str) -> str:
    """What the driver's own file says of a GPU; "" where it says nothing."""
    return read_information(system, bdf).get(item, "")
