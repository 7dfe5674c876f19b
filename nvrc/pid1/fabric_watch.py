# SPDX-License-Identifier: Apache-2.0
"""The NVLink fabric after the boot: NVIDIA's library is asked once a minute whether a GPU's registration has changed.

There is no event for it. The worker is asked without waiting: its answer comes by the event loop, and one that does not
come, or is none, ends the watch with a remark. A GPU that leaves the fabric is told; running work may go on.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable
from nvrc.engine.executor import unforeseen
from nvrc.nvml.answers import FabricState, read_records
from nvrc.nvml.registration import Registration, read_registrations, tell_changes
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble, remark

if TYPE_CHECKING:
    from nvrc.machine.loop import Loop
    from nvrc.nvml.worker import Worker

PERIOD_S = 60.0


class FabricWatch:
    """`changed` is called with each piece of news, `later` after so many seconds."""

    def __init__(self, worker: Worker, loop: Loop, found: tuple[Registration, ...],
                 places: dict[int, tuple[str, str]], *,
                 later: Callable[[float, Callable[[], None]], None], changed: Callable[[Trouble], None],
                 patience_s: float) -> None:
        self._worker, self._loop, self._later, self._changed = worker, loop, later, changed
        self._places, self._patience_s = places, patience_s
        self.found = found
        self._turn = 0
        later(PERIOD_S, self._ask)

    @property
    def is_whole(self) -> bool:
        return all(one.is_good for one in self.found)

    def _ask(self) -> None:
        try:
            if not self._worker.begin("fabric", gpus=tuple(self._places)):
                self._later(PERIOD_S, self._ask)
                return
        except NvrcError as err:
            self._stop(err.what)
            return
        self._turn += 1
        turn, answers = self._turn, self._worker.answers
        self._loop.watch(answers, self._take)

        def overdue() -> None:
            if self._turn == turn and self._worker.is_asked:
                self._loop.unwatch(answers)
                self._worker.abandon()
                self._stop(f"no answer within {self._patience_s:g} s")

        self._later(self._patience_s, overdue)

    def _take(self) -> None:
        answers = self._worker.answers
        self._loop.unwatch(answers)  # before the worker may close it
        try:
            answer = self._worker.take()
            if answer is not None:
                self._judge(read_records(FabricState, answer[0]))
        except NvrcError as err:
            self._stop(err.what)
            return
        except Exception as err:  # an answer that takes Python to its limits ends the watch, and never PID 1
            self._stop(unforeseen(err))
            return
        if answer is None:
            self._loop.watch(answers, self._take)  # the rest of it comes later
        else:
            self._later(PERIOD_S, self._ask)

    def _judge(self, states: tuple[FabricState, ...]) -> None:
        if [one.number for one in states] != list(self._places):
            raise NvrcError("E_NVML_CRASH", "the answer is not about the GPUs that were asked for")
        now = read_registrations(states, self._places)
        before, self.found = self.found, now
        for one in tell_changes(before, now):
            self._changed(one)

    def _stop(self, why: str) -> None:
        self._changed(remark(f"the NVLink fabric is not watched any more: {why}"))
