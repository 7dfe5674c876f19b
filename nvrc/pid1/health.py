# SPDX-License-Identifier: Apache-2.0
"""GPU health after the boot, from what the driver tells the kernel log: Xid lines, and GPUs that fall off the bus.

Numbers and names are those of NVIDIA's open kernel modules (nverror.h). Many Xids are the workload's own errors: they
are told, once for each GPU and number, and change nothing, so that a container cannot make its GPU look broken. Only
the kernel's own messages are heard, not what programs write to /dev/kmsg, and of those only what begins as the driver's
do: a container makes other parts of the kernel quote words of its own. Each GPU has room for its own news, so that a
flood about places that are none of its GPUs hides nothing. Nothing here raises.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable, replace
from nvrc.machine.journal import KERNEL, KERNEL_LOST, Line
from nvrc.services.ledger import CODE as ATTACH
from nvrc.vocabulary.digits import is_number
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.gpu import GpuRecord, GpuState, name_place
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble, remark

if TYPE_CHECKING:
    from nvrc.report.status import XidRecord
    from nvrc.vocabulary.errors import Code

LOST: Code = "E_GPU_LOST"
FAULT: Code = "E_GPU_FAULT"

# Xids after which a GPU gives no reliable service before a reset or a repair.
FAULTS = {
    48: "double-bit memory error", 62: "power controller halted", 64: "no memory row left to retire",
    74: "NVLink error", 79: "fell off the bus", 95: "uncontained memory error", 110: "security fault",
    119: "GSP did not answer", 120: "GSP error", 136: "NVLink training failed", 140: "unrecovered memory error",
    143: "initialisation failed", 151: "key rotation of the secure session failed", 155: "NVLink software error",
    157: "no resource left to retire", 158: "fatal timeout", 161: "no channel left to retire",
    165: "isolation used up", 167: "PCIe fatal timeout", 170: "NVLink security error", 171: "uncorrectable DRAM error",
    172: "uncorrectable SRAM error",
}
OFF_THE_BUS = 79
MOST_KINDS = 256  # of things told of one GPU, and of all other places together; what comes after that is not news

_XID, _SXID, _GONE = "NVRM: Xid (PCI:", "SXid (PCI:", "NVRM: GPU "
_SWITCH = "nvidia-nvswitch"
_PLACE = frozenset("0123456789abcdefABCDEF:.")


class GpuHealth:
    """State of each GPU. `changed` is called with each piece of news."""

    def __init__(self, gpus: tuple[GpuRecord, ...], changed: Callable[[Trouble], None]) -> None:
        self._records = {record.bdf: record for record in gpus}
        self._changed = changed
        self._told: dict[str, set[tuple[str, int]]] = {}  # by GPU; "" for all other places
        self._xids: dict[tuple[str, int], int] = {}
        self._gaps = 0

    @property
    def xids(self) -> tuple[XidRecord, ...]:
        from nvrc.report.status import XidRecord

        return tuple(XidRecord(gpu=bdf, number=number, count=count) for (bdf, number), count in self._xids.items())

    @property
    def records(self) -> tuple[GpuRecord, ...]:
        return tuple(self._records.values())

    @property
    def is_whole(self) -> bool:
        return all(record.state not in (GpuState.LOST, GpuState.FAILED) for record in self._records.values())

    def hear(self, line: Line) -> None:
        if line.uid == KERNEL_LOST:
            self._note_gap(line.text)
        if line.uid != KERNEL:
            return
        if line.text.startswith(_SWITCH):
            self._hear_switch(line.text)
        elif xid := read_xid(line.text, _XID, 4):
            place, number, words = xid
            self._count(self._name(place), number)
            self._note_xid(self._name(place), number, words)
        elif place := read_gone(line.text):
            self._note_xid(self._name(place), OFF_THE_BUS, "")

    def _hear_switch(self, text: str) -> None:
        name, _, rest = text.partition(": ")
        xid = read_xid(rest, _SXID, 6)
        if xid and is_number(name.removeprefix(_SWITCH), 3):
            place, number, words = xid
            self._tell(place, number, remark(f"NVSwitch {name} at {place}: SXid {number}: {words}"))

    def attached_again(self, heard: tuple[GpuRecord, ...]) -> None:
        """What nvidia-persistenced said of the GPUs that it held before it had to be started again."""
        for record in heard:
            known = self._records[record.bdf]
            if record.code and not known.code:
                self._records[record.bdf] = replace(known, state=GpuState.FAILED, code=record.code)
        lost = [record for record in heard if record.code]
        for record in lost:
            known = self._records[record.bdf]
            self._changed(make_trouble(ATTACH, f"GPU {known.place}: not attached again by nvidia-persistenced",
                                       step=AFTER_THE_BOOT, gpu=known.bdf, uuid=known.uuid))
        self._changed(remark(f"nvidia-persistenced has attached {len(heard) - len(lost)} of {len(heard)} GPUs again"))

    def _name(self, place: str) -> str:
        """The bus id as the ledger has it: Xid lines leave the function out."""
        place = place.lower()
        return next((bdf for bdf in self._records if place in (bdf, bdf.rpartition(".")[0])), place)

    def _count(self, bdf: str, number: int) -> None:
        """Lines that are Xids: of a GPU that falls off the bus the driver tells in another line as well."""
        if bdf in self._records and (
            (bdf, number) in self._xids or len(self._xids) < MOST_KINDS * len(self._records)
        ):
            self._xids[bdf, number] = self._xids.get((bdf, number), 0) + 1

    def _note_xid(self, bdf: str, number: int, text: str) -> None:
        record, meaning = self._records.get(bdf), FAULTS.get(number)
        code: Code = LOST if number == OFF_THE_BUS else FAULT
        if record and meaning and record.state is not GpuState.LOST:
            state = GpuState.LOST if number == OFF_THE_BUS else GpuState.FAILED
            self._records[bdf] = replace(record, state=state, code=code)
        uuid = record.uuid if record else ""
        what = (f"GPU {name_place(bdf, uuid)}: Xid {number}" + (f", {meaning}" if meaning else "")
                + (f": {text}" if text else ""))
        self._tell(bdf, number, make_trouble(code, what, step=AFTER_THE_BOOT, gpu=bdf, uuid=uuid) if meaning else
                   replace(remark(what), gpu=bdf, uuid=uuid))

    def _note_gap(self, text: str) -> None:
        """Told at the first, the second, the fourth..., because a flood makes one after another."""
        self._gaps += 1
        if self._gaps & (self._gaps - 1) == 0:
            self._changed(remark(f"{text} ({self._gaps} times): a fault of a GPU may be among them; ask nvidia-smi"))

    def _tell(self, place: str, number: int, news: Trouble) -> None:
        """Once for each place and number; a driver that repeats itself is no news."""
        told = self._told.setdefault(place if place in self._records else "", set())
        if (place, number) not in told and len(told) < MOST_KINDS:
            told.add((place, number))
            self._changed(news)


def read_xid(text: str, head: str, most: int) -> tuple[str, int, str] | None:
    """Place, number of at most so many digits, and words of a line that begins so. No pattern: what compiles them would
    stay in memory for the life of the VM."""
    place, _, rest = text.removeprefix(head).partition("): ")
    number, comma, words = rest.partition(",")
    if not (text.startswith(head) and is_place(place) and comma and is_number(number, most)):
        return None
    return place, int(number), words.lstrip(" ")


def read_gone(text: str) -> str:
    """The place of a GPU that has fallen off the bus; empty for any other line."""
    place, _, rest = text.removeprefix(_GONE).partition(": ")
    is_it = text.startswith(_GONE) and is_place(place) and rest.startswith("GPU has fallen off the bus")
    return place if is_it else ""


def is_place(word: str) -> bool:
    return 7 <= len(word) <= 16 and _PLACE.issuperset(word)
