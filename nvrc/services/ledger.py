# SPDX-License-Identifier: Apache-2.0
"""The attach ledger: what nvidia-persistenced says about each GPU, which is the only place where the truth is.

Its exit status, its socket and its "initialized" line look the same when every GPU failed. Wording as in NVIDIA's
sources (nvidia-persistenced.c): `device 0000:40:00.0 - registered`, then `persistence mode enabled.` or
`failed to open.`, one GPU after another.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Iterable, replace
from nvrc.machine.journal import Line
from nvrc.vocabulary.gpu import GpuRecord, GpuState

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

TAG = "nvidia-persistenced"
ATTACHED = ("persistence mode enabled.", "already in requested persistence mode.")
FAILED = ("failed to open.", "requested invalid mode")
CODE: Code = "E_GPU_ATTACH"


class Ledger:
    """GPUs in the order of the bus. A state only moves forward; `failed` and `attached` are final."""

    def __init__(self, bdfs: Iterable[str]) -> None:
        self._records = {bdf: GpuRecord(bdf=bdf) for bdf in bdfs}
        self._since_s: dict[str, float] = {}
        self.last_attached_s: float | None = None

    @property
    def records(self) -> tuple[GpuRecord, ...]:
        return tuple(self._records.values())

    @property
    def attached(self) -> tuple[GpuRecord, ...]:
        return self._in(GpuState.ATTACHED)

    @property
    def pending(self) -> tuple[GpuRecord, ...]:
        """Those that have not got their final word yet; the daemon is at work on one that is registered."""
        return self._in(GpuState.REGISTERED) + self._in(GpuState.SEEN)

    def _in(self, state: GpuState) -> tuple[GpuRecord, ...]:
        return tuple(record for record in self._records.values() if record.state is state)

    def concerns(self, line: Line) -> bool:
        """Whether it would get a GPU further, if the daemon itself said it."""
        bdf, said = read_device_line(line.text)
        record = self._records.get(bdf)
        return record is not None and self._state_after(record, said) is not record.state

    def hear(self, line: Line, now: float) -> bool:
        """Whether the line, which the daemon itself must have said, got a GPU further."""
        bdf, said = read_device_line(line.text)
        record = self._records.get(bdf)
        if record is None:
            return False
        state = self._state_after(record, said)
        if state is record.state:
            return False
        since_s = self._since_s.setdefault(bdf, now)
        final = state in (GpuState.ATTACHED, GpuState.FAILED)
        self._records[bdf] = replace(record, state=state, code=CODE if state is GpuState.FAILED else "",
                                     seconds=now - since_s if final else None)
        if state is GpuState.ATTACHED:
            self.last_attached_s = now
        return True

    @staticmethod
    def _state_after(record: GpuRecord, said: str) -> GpuState:
        if record.state in (GpuState.ATTACHED, GpuState.FAILED):
            return record.state
        if said.startswith(ATTACHED):
            return GpuState.ATTACHED
        if said.startswith(FAILED):
            return GpuState.FAILED
        return GpuState.REGISTERED if said == "registered" else record.state

    def close(self) -> None:
        """The daemon has said all it will say: a GPU without a final word has failed."""
        for record in self.pending:
            self._records[record.bdf] = replace(record, state=GpuState.FAILED, code=CODE)

    def tell(self, now: float) -> str:
        """`5 of 8 GPUs attached, last 4.1 s ago`."""
        last = "none yet" if self.last_attached_s is None else f"last {now - self.last_attached_s:.1f} s ago"
        return f"{self.count()}, {last}"

    def count(self) -> str:
        """`5 of 8 GPUs attached`."""
        return f"{len(self.attached)} of {len(self._records)} GPUs attached"


def read_device_line(text: str) -> tuple[str, str]:
    """Bus id and message of a syslog line of the daemon about a device; two empty strings for other lines."""
    _, tag, rest = text.partition(TAG)
    head, _, message = rest.partition(": ")
    if not tag or head.strip("[]0123456789"):
        return "", ""
    word, _, told = message.partition(" ")
    bdf, dash, said = told.partition(" - ")
    return (bdf, said.strip()) if word == "device" and dash else ("", "")


def lines_about(bdf: str, lines: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """The lines that may explain this GPU: those that name it, and those that name none of the others."""
    foreign = [short(other) for other in others if other != bdf]
    return tuple(line for line in lines if short(bdf) in line or not any(other in line for other in foreign))


def short(bdf: str) -> str:
    """Without the function: the driver writes both 0000:40:00.0 and 0000:40:00."""
    return bdf.rpartition(".")[0]
