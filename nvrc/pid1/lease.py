# SPDX-License-Identifier: Apache-2.0
"""The ready state of confidential GPUs after the boot: a lease that can be ended once, and never begins again.

The driver takes "not ready" after "ready" as fatal and accepts no other state before its modules are loaded anew, which
the guest forbids. It refuses new work then, and running work goes on. So the state is taken back only where
`nvrc.ready.revoke` asks for it. The driver also ends the lease itself, and says so in one line of the kernel's log.

NVIDIA's library is asked by a worker of its own, without waiting: PID 1's loop hears the answer, or kills it.
"""

from __future__ import annotations

import os

from guest_cdi.lean.light import TYPE_CHECKING, Callable
from nvrc.machine.journal import KERNEL, Line
from nvrc.params.table import asked
from nvrc.params.values import RevokeRule
from nvrc.services.table import FABRIC_MANAGER, SUBNET_MANAGER
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble

if TYPE_CHECKING:
    from nvrc.machine.loop import Loop
    from nvrc.nvml.worker import Worker

DRIVER, FATAL = "NVRM: ", "ConfCompute: Fatal error hit!"
FABRIC = (FABRIC_MANAGER.name, SUBNET_MANAGER.name)
REPLY_LIMIT = 1 << 16


class Lease:
    """`accepts`: whether the GPUs took work after the boot. `start` makes a worker, `changed` is told the outcome."""

    def __init__(self, rule: RevokeRule, *, accepts: bool, loop: Loop, patience_s: float, start: Callable[[], Worker],
                 kill: Callable[[int], None], now: Callable[[], float], changed: Callable[[Trouble], None]) -> None:
        self._rule, self._loop, self._patience_s = rule, loop, patience_s
        self._start, self._kill, self._now, self._changed = start, kill, now, changed
        self._worker: Worker | None = None
        self._why = ""
        self._reply = b""
        self.is_held, self.is_revoked, self._is_ending = accepts, False, False

    def hear(self, line: Line) -> None:
        """The driver's own end of it, in a line of its own: other parts of the kernel quote a container's words."""
        is_its_own = line.text.startswith(DRIVER) and line.text.endswith(FATAL)
        if line.uid == KERNEL and is_its_own and not self.is_revoked:
            self._end(f"the driver revoked the ready state of the GPUs: {FATAL}")

    def note(self, trouble: Trouble) -> None:
        """Something was lost; is that a reason to end the lease?"""
        if not self.is_held or self._is_ending or not self._is_reason(trouble):
            return
        self._is_ending, self._why = True, trouble.what
        try:
            self._ask()
        except Exception as err:
            self._fail(str(err))

    def _is_reason(self, trouble: Trouble) -> bool:
        is_fabric = trouble.code == "E_FABRIC_STATE" or (trouble.code == "E_SERVICE_LOST" and trouble.service in FABRIC)
        match self._rule:
            case RevokeRule.NEVER:
                return False
            case RevokeRule.GPU_LOST:
                return trouble.code == "E_GPU_LOST"
            case RevokeRule.FABRIC_LOST:
                return is_fabric
            case _:
                return trouble.code in ("E_GPU_LOST", "E_GPU_FAULT", "E_SERVICE_LOST", "E_FABRIC_STATE")

    def _ask(self) -> None:
        from nvrc.vocabulary.jsontext import encode_line

        worker = self._worker = self._start()
        os.write(worker.questions, encode_line({"ask": "ready", "given": {"ready": False}}))
        self._loop.watch(worker.answers, lambda: self._take(worker))
        self._loop.at(self._now() + self._patience_s, lambda: self._overdue(worker))

    def _take(self, worker: Worker) -> None:
        try:
            piece = os.read(worker.answers, REPLY_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self._reply += piece
        if piece and not self._reply.endswith(b"\n") and len(self._reply) < REPLY_LIMIT:
            return
        self._close(worker)
        try:
            self._judge()
        except Exception as err:
            self._fail(str(err))

    def _judge(self) -> None:
        from guest_cdi.lean.jsonvalue import read_json

        if not self._reply.endswith(b"\n"):
            raise ValueError("the worker with NVIDIA's library ended")
        answer = read_json(self._reply)
        found = answer.get("ok") if isinstance(answer, dict) else None
        if found is None or found[1] is not False:
            told = answer.get("what") if isinstance(answer, dict) else None
            raise ValueError(str(told or "the state is still ready"))
        self._end(f"the ready state of the GPUs was revoked ({asked('ready_revoke', self._rule)}): {self._why}")

    def _overdue(self, worker: Worker) -> None:
        if self._worker is worker:
            self._kill(worker.pid)
            self._close(worker)
            self._fail(f"NVIDIA's library did not answer within {self._patience_s:g} s")

    def _close(self, worker: Worker) -> None:
        self._worker = None
        self._loop.unwatch(worker.answers)
        worker.stop()

    def _end(self, what: str) -> None:
        self.is_held, self.is_revoked = False, True
        self._changed(make_trouble("E_READY_REVOKED", what, step=AFTER_THE_BOOT))

    def _fail(self, why: str) -> None:
        self._changed(make_trouble("E_READY_STATE", f"the ready state of the GPUs could not be revoked: {why}",
                                   "replace the VM: its GPUs may still accept work", step=AFTER_THE_BOOT))
