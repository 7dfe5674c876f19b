# SPDX-License-Identifier: Apache-2.0
"""A forked process that runs what must not run inside PID 1: NVIDIA's library, and the CDI document made with it.

PID 1 asks by name, the worker answers, both in lines of JSON through a pipe: nothing that the worker sends can do more
to PID 1 than be a wrong answer. A library that crashes or never answers is a failed request with a code. The worker
lives through all requests, so the library is opened once, and is killed when there are no more.
"""

from __future__ import annotations

import _thread
import os
import select
import time
from _queue import SimpleQueue

from guest_cdi.lean.jsonvalue import read_json
from guest_cdi.lean.light import TYPE_CHECKING, Callable, Mapping, dataclass, field
from nvrc.machine.privileges import WORKER
from nvrc.machine.system import System
from nvrc.vocabulary.errors import NvrcError, known_code
from nvrc.vocabulary.jsontext import encode_line
from nvrc.vocabulary.signals import signal, signal_name

if TYPE_CHECKING:
    from nvrc.machine.rights import Privileges

INPUT = 0  # a descriptor
ANSWER_BYTES = 4 << 20
WAKE = b"\n"
WORDS_CHARS = 4000  # of a failure's text: it goes into the report, which has to fit into /run

Value = object  # what JSON can say
Request = Callable[[Mapping[str, Value]], Value]  # from what the request was given to its answer


@dataclass(slots=True)
class Worker:
    """PID 1's end. One request at a time: threads queue. After a failure of the process itself there is no worker.

    Reading does not wait: what is there to read the worker may take back, as it opens its end of the pipe once more.
    """

    system: System
    questions: int
    answers: int
    pid: int
    warmed: tuple[float, float] | None = None  # when it loaded its code and read the driver's directories
    reaper_s: float = 1.0  # until one that closed its pipe by dying has been reaped
    _statuses: SimpleQueue[int] = field(default_factory=SimpleQueue)
    _turn: _thread.LockType = field(default_factory=_thread.allocate_lock)
    _has_ended: bool = False
    _asked: str = ""
    _part: bytes = b""

    def ask(self, name: str, deadline_s: float, **given: Value) -> Value:
        """The answer to a request, or NvrcError: the request's own, E_NVML_CRASH or E_NVML_HANG."""
        text = encode_line({"ask": name, "given": given})
        began_s = self.system.now()
        with self._turn:
            try:
                os.write(self.questions, text)
            except OSError as err:
                raise self._died(name) from err
            reply = _read_reply(name, self._read_answer(name, deadline_s))
        self._account(reply, self.system.now() - began_s)
        return _unwrap(reply)

    def wake(self) -> None:
        """Have it get ready now, not at the first question. If it has ended, that question finds out."""
        try:
            os.write(self.questions, WAKE)
        except OSError:
            pass

    def begin(self, name: str, **given: Value) -> bool:
        """Ask without waiting; `take` has the answer once `answers` can be read. False while another one asks."""
        if not self._turn.acquire(blocking=False):
            return False
        self._asked, self._part = name, b""
        try:
            os.write(self.questions, encode_line({"ask": name, "given": given}))
        except OSError as err:
            raise self._abandon("is gone") from err
        return True

    def take(self) -> tuple[Value] | None:
        """The answer to what was begun, None while it is not whole. Reads once, and waits for nothing."""
        try:
            piece = os.read(self.answers, 1 << 16)
        except BlockingIOError:
            return None
        except OSError as err:
            raise self._abandon("is gone") from err
        self._part += piece
        if not piece:
            raise self._abandon("ended")
        if len(self._part) > ANSWER_BYTES:
            raise self._abandon("answered without end")
        if not self._part.endswith(b"\n"):
            return None
        name, line = self._asked, self._part
        self._asked = ""
        self._turn.release()
        return (_unwrap(_read_reply(name, line)),)

    def abandon(self) -> None:
        """Of what was begun no answer is expected any more, nor of the worker anything."""
        self._abandon("does not answer")

    @property
    def is_asked(self) -> bool:
        """Whether something that was begun has no answer yet."""
        return bool(self._asked)

    def _abandon(self, how: str) -> NvrcError:
        name, self._asked = self._asked, ""
        self.stop()
        self._turn.release()
        return NvrcError("E_NVML_CRASH", f"the worker with NVIDIA's library {how} during {name!r}")

    def _account(self, reply: Mapping[str, Value], took_s: float) -> None:
        """Processor time of the worker is our own work for the most part; the rest was waiting for the driver.

        Claims that cannot be are passed over: these figures go into the report, and nothing else depends on them.
        """
        used_s = reply.get("cpu_s")
        known_s = used_s if isinstance(used_s, float) and used_s >= 0.0 else 0.0
        self.system.waits.add(took_s - min(known_s, took_s))
        match reply.get("warmed"):
            case [float(began_s), float(ended_s)] if 0.0 <= began_s <= ended_s <= self.system.now():
                self.warmed = (began_s, ended_s)

    def stop(self) -> None:
        """Close the conversation, and end the worker: one that was taken over would stay, beside containers."""
        if self.is_there:
            os.close(self.questions)
            os.close(self.answers)
            self.questions = self.answers = -1
            if not self._has_ended:
                self.system.signal(self.pid, signal.SIGKILL)

    @property
    def is_there(self) -> bool:
        """Whether it can be asked."""
        return self.answers >= 0

    def _read_answer(self, name: str, deadline_s: float) -> bytes:
        until = self.system.now() + deadline_s
        poll = select.poll()
        poll.register(self.answers, select.POLLIN)
        answer = b""
        while not answer.endswith(b"\n"):
            left_s = until - self.system.now()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise self._hangs(name, deadline_s)
            try:
                piece = os.read(self.answers, 1 << 16)
            except BlockingIOError:
                continue
            if not piece:
                raise self._died(name)
            answer += piece
            if len(answer) > ANSWER_BYTES:
                raise self._hangs(name, deadline_s)
        return answer

    def _hangs(self, name: str, deadline_s: float) -> NvrcError:
        self.stop()
        return NvrcError("E_NVML_HANG", f"no answer to {name!r} from NVIDIA's library within {deadline_s:g} s")

    def _died(self, name: str) -> NvrcError:
        how = self._how(self.reaper_s if self.is_there else 0)
        self.stop()
        return NvrcError("E_NVML_CRASH", f"the worker with NVIDIA's library ended during {name!r}{how}")

    def _how(self, limit_s: float) -> str:
        """In words, as soon as the reaper tells: its end and that of the conversation come side by side."""
        status = self.system.wait(self._statuses, limit_s)
        if status is None:
            return ""
        return f", killed by {signal_name(os.WTERMSIG(status))}" if os.WIFSIGNALED(status) else (
            f" with status {os.waitstatus_to_exitcode(status)}")

    def ended(self, _pid: int, status: int) -> None:
        self._has_ended = True  # its pid may be another's from here on
        self._statuses.put(status)


def start_worker(system: System, requests: Callable[[], Mapping[str, Request]],
                 privileges: Privileges = WORKER) -> Worker:
    """Fork one that answers `requests()`; the mapping is made in the child, which imports what it needs.

    Not before PID 1 wakes or asks it: a daemon that the boot waits for starts meanwhile, perhaps on the one processor.
    """
    hearing, questions = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(questions, False)  # a question that it does not take in is one that it does not answer
    worker = Worker(system, questions, -1, -1)

    def task(answering: int) -> None:
        began_s = system.now()
        rows = requests()
        serve(INPUT, answering, rows, (began_s, system.now()))

    try:
        worker.pid, worker.answers = system.fork(task, privileges, worker.ended, hearing)
        os.set_blocking(worker.answers, False)
    except OSError:
        os.close(questions)
        raise
    finally:
        os.close(hearing)
    return worker


def serve(hearing: int, answering: int, requests: Mapping[str, Request],
          warmed: tuple[float, float] | None = None) -> None:
    """The worker's end: answer until the other side is closed."""
    with os.fdopen(hearing, "rb", closefd=False) as lines:
        for line in lines:
            if line == WAKE:
                continue
            os.write(answering, answer(line, requests, warmed))


def answer(line: bytes, requests: Mapping[str, Request], warmed: tuple[float, float] | None = None) -> bytes:
    """With what it cost, and when the worker got ready for it."""
    began_s = time.process_time()
    name, given = _read_request(line)
    reply: Mapping[str, Value]
    try:
        reply = {"ok": requests[name](given)}
    except NvrcError as err:
        reply = {"code": err.code, "what": err.what, "hint": err.hint}
    except Exception as err:
        reply = {"code": "E_INTERNAL", "what": f"{name}: {err!r}", "hint": ""}
    return encode_line({**reply, "cpu_s": time.process_time() - began_s, "warmed": warmed})


def _read_request(line: bytes) -> tuple[str, Mapping[str, Value]]:
    """As PID 1 wrote it; anything else ends the worker, which PID 1 hears."""
    match read_json(line):
        case {"ask": str(name), "given": dict(given)}:
            return name, given
    raise ValueError(f"no request: {line[:80]!r}")


def _read_reply(name: str, line: bytes) -> Mapping[str, Value]:
    try:
        reply = read_json(line)
        if not isinstance(reply, dict):
            raise TypeError("no object")
        if "ok" not in reply:
            reply["code"], reply["what"], reply["hint"]
    except (ValueError, TypeError, KeyError) as err:
        raise NvrcError("E_NVML_CRASH", f"the worker's answer to {name!r} is not one: {line[:80]!r}") from err
    return reply


def _unwrap(reply: Mapping[str, Value]) -> Value:
    if "ok" in reply:
        return reply["ok"]
    code, what, hint = (str(reply[key])[:WORDS_CHARS] for key in ("code", "what", "hint"))
    raise NvrcError(known_code(code) or "E_INTERNAL", what, hint)
