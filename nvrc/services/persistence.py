# SPDX-License-Identifier: Apache-2.0
"""Has nvidia-persistenced attach every GPU, and believes only what it says about each of them.

It is the first client of the GPUs and holds the one attach that a confidential GPU has, so it is never killed while it
is at work, whatever else goes wrong. The end of the process that was started says that the daemon is up; the lines per
device say which GPUs are; the deadline starts anew with each of them.
"""

from __future__ import annotations

from types import MappingProxyType

from guest_cdi.lean.light import TYPE_CHECKING, Callable, Collection, Iterable, Mapping, NamedTuple, deque, replace
from nvrc.hardware.gpu_files import read_driver, read_information
from nvrc.machine.journal import Journal
from nvrc.machine.privileges import as_root, hand_out
from nvrc.machine.system import Files, Kernel, System
from nvrc.machine.wait import ChildEnded, Events, OverdueError
from nvrc.params.values import GpuCount
from nvrc.services.launch import MOST_WORDS, ended_early, new_words
from nvrc.services.ledger import CODE, Ledger, lines_about
from nvrc.services.lineage import Speaker, introduce, speaks_for
from nvrc.services.table import PERSISTENCED, Running, Service, find_daemon, start
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.gpu import GpuRecord, GpuState, name_place

if TYPE_CHECKING:
    from nvrc.hardware.gpu_files import Told
    from nvrc.machine.journal import Line
    from nvrc.services.launch import Words
    from nvrc.services.signatures import Signature
    from nvrc.vocabulary.trouble import Trouble

    Hear = Callable[[Line], bool]

LAST_WORDS_S = 1.0  # of silence: lines that were sent before the process ended are read after, a flood of them slowly


class Attached(NamedTuple):
    """nvidia-persistenced at work, and what it told of each GPU. `told`: what the driver itself says of them since."""

    running: Running
    ledger: tuple[GpuRecord, ...]
    told: Mapping[str, Told]
    warnings: tuple[Trouble, ...]


class AttachError(NvrcError):
    """Not enough GPUs came up; the ledger says how far it got."""

    def __init__(self, error: NvrcError, ledger: tuple[GpuRecord, ...]) -> None:
        super().__init__(error.code, error.what, error.hint, error.details)
        self.trouble = error.trouble
        self.ledger = ledger


def attach(system: System, on_bus: Iterable[str], wanted: GpuCount, *, patience_s: float, uvm: bool, root: str,
           journal: Journal | None) -> Attached:
    """`patience_s`: how long it may take until the next GPU has attached or failed."""
    ledger = Ledger(on_bus)
    try:
        running, said = _run_daemon(system, ledger, patience_s=patience_s, uvm=uvm, root=root, journal=journal)
        excluded = {record.bdf for record in ledger.pending
                    if _information(system, record.bdf, "GPU Excluded") == "Yes"}
        told = read_driver(system, (record.bdf for record in ledger.records))
        uuids = {bdf: row.uuid for bdf, row in told.items()}
        warnings = judge(ledger, said, wanted, excluded, uuids)
    except NvrcError as err:
        raise AttachError(err, _records(system, ledger)) from err
    records = tuple(replace(record, uuid=uuids[record.bdf]) for record in ledger.records)
    return Attached(running, records, told, warnings)


def _run_daemon(system: System, ledger: Ledger, *, patience_s: float, uvm: bool, root: str,
                journal: Journal | None) -> tuple[Running, Words]:
    """The daemon once it has tried every GPU, and what was said meanwhile."""
    with Events(system, patience_s, journal) as events:
        program, pid = start(system, as_whom(system, PERSISTENCED), root, events.ended, {"uvm": "on" if uvm else ""})
        listener = _Listener(system, ledger, introduce(system, PERSISTENCED, program, pid, events.started_s))
        said = listener.said
        _follow(events, system, ledger, said, listener.hear)
        listener.ask_again()
        _hear_the_rest(events, ledger, listener.hear)
    daemon = find_daemon(system, PERSISTENCED)
    if daemon is None:
        raise NvrcError("E_PERSISTENCED_START",
                        f"nvidia-persistenced left no pid of its own in its folder, {paths.PERSISTENCED_HOME}")
    hand_out(system, PERSISTENCED.privileges, PERSISTENCED.code)
    return Running(service=PERSISTENCED, program=program, started_pid=pid, pid=daemon, since_s=events.started_s), said


def _records(system: Files, ledger: Ledger) -> tuple[GpuRecord, ...]:
    return tuple(_with_uuid(system, record) for record in ledger.records)


def as_whom(system: Files, service: Service) -> Service:
    """A daemon as its own user; as root where the driver's node lets no other in (its parameter DeviceFileMode)."""
    node = system.find_node(paths.NVIDIA_CONTROL)
    if node is None or node.mode & 0o006 == 0o006:
        return service
    return replace(service, privileges=as_root(service.privileges))


class _Listener:
    """For the daemon speaks only the daemon. What others say may explain a failure."""

    def __init__(self, system: System, ledger: Ledger, speaker: Speaker) -> None:
        self._system, self._ledger, self._speaker = system, ledger, speaker
        self.said = new_words()
        self._doubted: deque[Line] = deque(maxlen=MOST_WORDS)

    def hear(self, line: Line) -> bool:
        """Whether a GPU got further."""
        self.said.append(line.text)
        if not self._ledger.concerns(line):
            return False
        if speaks_for(self._system, line, self._speaker):
            return self._ledger.hear(line, self._system.now())
        self._doubted.append(line)
        return False

    def ask_again(self) -> None:
        """Whose the lines were that nobody was known to have said: while a daemon goes into the background, it may be
        known by nothing yet. Now it is there for good, with its PID file.
        """
        for line in self._doubted:
            if speaks_for(self._system, line, self._speaker):
                self._ledger.hear(line, self._system.now())


def _follow(events: Events, system: Kernel, ledger: Ledger, said: Words, hear: Hear) -> None:
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


def _stalled(ledger: Ledger, overdue: OverdueError, said: Words, now: float) -> NvrcError:
    wedged = next((record.bdf for record in ledger.pending if record.state is GpuState.REGISTERED), "")
    where = f"{wedged} does not come up" if wedged else "nvidia-persistenced is not working on any GPU"
    found = _explain(lines_about(wedged, said, (record.bdf for record in ledger.records))) if wedged else None
    return NvrcError("E_PERSISTENCED_STALL",
                     f"{ledger.tell(now)}, no progress for {overdue.silent_s:.1f} s; {where}",
                     found.advice if found else "", gpu=wedged, service=PERSISTENCED.name)


def judge(ledger: Ledger, said: Words, wanted: GpuCount, excluded: Collection[str] = (),
          uuids: Mapping[str, str] = MappingProxyType({})) -> tuple[Trouble, ...]:
    """One per GPU that is not attached, as warnings if enough are; else the failure that they are."""
    silent = {record.bdf for record in ledger.pending}
    ledger.close()
    failed = [record for record in ledger.records if record.state is GpuState.FAILED]
    bdfs = [record.bdf for record in ledger.records]
    about = {record.bdf: _explain(lines_about(record.bdf, said, bdfs)) for record in failed}
    troubles = tuple(
        make_trouble(CODE, _sentence(name_place(bdf, uuids.get(bdf, "")), was_tried=bdf not in silent)
                     + (": the driver's own options exclude it" if bdf in excluded else
                        f": {why.cause}" if why else ""),
                     gpu=bdf, uuid=uuids.get(bdf, ""))
        for bdf, why in about.items())
    if wanted.holds(len(ledger.attached), len(bdfs)):
        return troubles
    if not failed:
        raise NvrcError("E_GPU_COUNT", f"{len(bdfs)} of {len(bdfs)} GPUs attached; {wanted.required(len(bdfs))}",
                        "correct nvrc.gpus, or the devices that are passed to the VM")
    what = "; ".join((f"{ledger.count()}; {wanted.required(len(bdfs))}", *(trouble.what for trouble in troubles)))
    reason = next((why for why in about.values() if why), None)
    lone = troubles[0] if len(troubles) == 1 else None
    raise NvrcError((reason and reason.code) or CODE, what, reason.advice if reason else "",
                    gpu=lone.gpu if lone else "", uuid=lone.uuid if lone else "")


def _explain(lines: Iterable[str]) -> Signature | None:
    from nvrc.services.signatures import explain  # a boot that goes well never reads them

    return explain(lines)


def _sentence(place: str, *, was_tried: bool) -> str:
    return f"GPU {place} failed to attach" if was_tried else f"nvidia-persistenced never tried GPU {place}"


def _with_uuid(system: Files, record: GpuRecord) -> GpuRecord:
    """The driver knows a GPU's UUID once it was attached; before that the file says only question marks."""
    uuid = _information(system, record.bdf, "GPU UUID")
    return replace(record, uuid="" if "?" in uuid else uuid)


def _information(system: Files, bdf: str, item: str) -> str:
    """What the driver's own file says of a GPU; "" where it says nothing."""
    return read_information(system, bdf).get(item, "")
