# SPDX-License-Identifier: Apache-2.0
"""PID 1's dealings with the worker that holds NVIDIA's library: start it early, ask it within a deadline.

A question is a method here, with the type of its answer; nvrc.nvml.requests has the function that the child answers
it with.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping, NamedTuple, Sequence
from nvrc.machine.privileges import FABRIC_MANAGER, PERSISTENCED, WORKER, prepare
from nvrc.nvml.answers import (
    Applied,
    CcAnswer,
    CcMemory,
    CcSystem,
    CdiMade,
    Certificate,
    FabricState,
    LinkCount,
    MigMade,
    NvmlGpu,
    PairState,
    ReadyAnswer,
    SwitchTold,
    read_record,
    read_records,
)
from nvrc.nvml.worker import Request, Worker, start_worker
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.paths import TOPOLOGY_HOME

if TYPE_CHECKING:
    from guest_cdi.host import Host
    from nvrc.machine.system import System

SPARE_S = 5.0   # so that a request ends by its own deadline, which says more, and not by that of its step


def prepare_worker(system: System, driver_root: str, *, root: str = "/", host: Host | None = None) -> Worker:
    """Fork it before the driver attaches GPUs: it loads its code and reads the driver's directories meanwhile.

    Nothing of a GPU is touched until the first request. `root` and `host` are the machine that it looks at.
    """
    def requests() -> Mapping[str, Request]:
        from nvrc.nvml.requests import make_requests

        return make_requests(driver_root or "/", root=root, host=host)

    for row in (WORKER, PERSISTENCED, FABRIC_MANAGER):  # whose sockets the CDI document names
        prepare(system, row, "E_NVML_CRASH")
    try:
        system.make_dir(TOPOLOGY_HOME)  # so that the worker sees what comes into it later
        return start_worker(system, requests)
    except OSError as err:
        raise NvrcError("E_NVML_CRASH", f"the worker could not be forked: {err.strerror}",
                        "give the VM more memory") from err


class Client(NamedTuple):
    """A worker, and how long one question to it may take."""

    worker: Worker
    patience_s: float

    def gpus(self, *, serials: bool = False) -> tuple[NvmlGpu, ...]:
        return read_records(NvmlGpu, self.worker.ask("gpus", self.patience_s, serials=serials))

    def apply_settings(self, gpus: Sequence[int], asked: Mapping[str, int]) -> tuple[Applied, ...]:
        return read_records(Applied, self.worker.ask("settings", self.patience_s, gpus=gpus, **asked))

    def make_mig(self, plan: Sequence[tuple[int, tuple[str, ...]]]) -> tuple[MigMade, ...]:
        return read_records(MigMade, self.worker.ask("mig", self.patience_s, gpus=plan))

    def confidential(self, gpus: Sequence[int]) -> CcAnswer:
        answer = self.worker.ask("cc", self.patience_s, gpus=gpus)
        if not isinstance(answer, dict) or answer.keys() != {"system", "gpus"}:
            raise NvrcError("E_NVML_CRASH", f"the worker's answer is not a confidential mode: {ascii(answer)[:80]}")
        system = None if answer["system"] is None else read_record(CcSystem, answer["system"])
        return CcAnswer(system, read_records(CcMemory, answer["gpus"]))

    def certificates(self, gpus: Sequence[int]) -> tuple[Certificate, ...]:
        return read_records(Certificate, self.worker.ask("certificates", self.patience_s, gpus=gpus))

    def switches(self) -> tuple[SwitchTold, ...]:
        return read_records(SwitchTold, self.worker.ask("switches", self.patience_s))

    def fabric(self, gpus: Sequence[int]) -> tuple[FabricState, ...]:
        return read_records(FabricState, self.worker.ask("fabric", self.patience_s, gpus=gpus))

    def links(self, gpus: Sequence[int]) -> tuple[tuple[LinkCount, ...], tuple[PairState, ...]]:
        answer = self.worker.ask("links", self.patience_s, gpus=gpus)
        if not isinstance(answer, dict) or answer.keys() != {"links", "pairs"}:
            raise NvrcError("E_NVML_CRASH", f"the worker's answer is not about links: {ascii(answer)[:80]}")
        return read_records(LinkCount, answer["links"]), read_records(PairState, answer["pairs"])

    def describe_cdi(self, *, keep_going: bool) -> tuple[CdiMade, object]:
        """What was made, and the document itself, which nobody has judged yet."""
        return self._document(self.worker.ask("cdi", self.patience_s, keep_going=keep_going))

    def promise_cdi(self, gpus: Sequence[tuple[str, int]]) -> tuple[CdiMade, object]:
        """The same before the GPUs are attached, from their bus ids and minors in the order of the bus."""
        return self._document(self.worker.ask("promise", self.patience_s, gpus=gpus))

    def _document(self, answer: object) -> tuple[CdiMade, object]:
        if not isinstance(answer, dict) or answer.keys() != {"made", "document"}:
            raise NvrcError("E_NVML_CRASH", f"the worker's answer is not a document: {ascii(answer)[:80]}")
        return read_record(CdiMade, answer["made"]), answer["document"]

    def rotate_keys(self, advantage: int) -> int:
        answer = self.worker.ask("keys", self.patience_s, advantage=advantage)
        if type(answer) is not int:
            raise NvrcError("E_NVML_CRASH", f"the worker's answer is not a threshold: {ascii(answer)[:80]}")
        return answer

    def settle_ready(self, wish: bool | None) -> ReadyAnswer:
        answer = self.worker.ask("ready", self.patience_s, ready=wish)
        if not isinstance(answer, list) or [type(item) for item in answer] != [bool, bool]:
            raise NvrcError("E_NVML_CRASH", f"the worker's answer is not a ready state: {ascii(answer)[:80]}")
        return ReadyAnswer(*answer)
