# SPDX-License-Identifier: Apache-2.0
"""The process that holds NVIDIA's library: asked by a byte, answers with a line of JSON, killed when it does not.

Its owner never waits: an answer is taken when its pipe is ready. One that cannot even be killed, stuck in the driver,
has no successor until it is gone, so a driver that hangs costs one process, whatever the number of scrapes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable

from nvrc.beside.gpus import Answer

ANSWER_LIMIT = 1 << 20
DEADLINE_S = 10.0
# Each word becomes a label of some twenty samples, and a page waits for each connection.
MOST_GPUS, LONGEST = 64, 128
KEPT, HIGHEST = 3, 4096  # descriptors
PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
NVML = "libnvidia-ml.so.1"
Read = Callable[[], Answer]


class NvmlChild:
    """`latest` is what it told last, at `told_s`. Driven by `tick`, which never blocks."""

    def __init__(self, make: Callable[[], Read], every_s: float, deadline_s: float = DEADLINE_S) -> None:
        self._make, self._every_s, self._deadline_s = make, every_s, deadline_s
        self._pid, self._socket = 0, -1
        self._asked_s: float | None = None
        self._next_s, self._pause_s = 0.0, PAUSE_S
        self._piece = b""
        self.latest: Answer | None = None
        self.told_s = 0.0
        self.is_up = False
        self.failures = 0

    def fileno(self) -> int:
        return self._socket

    def tick(self, now_s: float) -> None:
        """Ask when it is time, give up what is overdue."""
        if self._pid and self._socket < 0:
            self._reap()
        if self._is_overdue(now_s):
            self.take(now_s)  # it may have answered in time, and its owner got no processor to see that
        if self._is_overdue(now_s):
            self._fail(now_s)
        if self._asked_s is None and now_s >= self._next_s and not (self._pid and self._socket < 0):
            self._ask(now_s)

    def _is_overdue(self, now_s: float) -> bool:
        return self._asked_s is not None and now_s - self._asked_s >= self._deadline_s

    def _ask(self, now_s: float) -> None:
        self._asked_s, self._next_s = now_s, now_s + self._every_s
        try:
            if self._socket < 0:
                self._start()  # where a container has used up what it takes, another is tried later
            os.write(self._socket, b"?")
        except OSError:
            self._fail(now_s)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pid = os.fork()
        if self._pid == 0:
            _serve(_keep_only(theirs), self._make)
        theirs.close()
        ours.setblocking(False)
        self._socket, self._piece = ours.detach(), b""

    def take(self, now_s: float) -> None:
        """Its pipe is ready."""
        try:
            piece = os.read(self._socket, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self._piece += piece
        if not piece or len(self._piece) > ANSWER_LIMIT:
            self._fail(now_s)
        elif self._piece.endswith(b"\n"):
            line, self._piece, self._asked_s = self._piece, b"", None
            answer = _answer_of(line)
            if answer is not None:
                self.latest, self.told_s, self.is_up, self._pause_s = answer, now_s, True, PAUSE_S
            else:
                self._fail(now_s)

    def _fail(self, now_s: float) -> None:
        """Ended, hung, or a wrong answer: kill it, and try another later, each time later."""
        self.is_up, self.failures, self._asked_s = False, self.failures + 1, None
        self._next_s, self._pause_s = now_s + self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.stop()

    def stop(self) -> None:
        if self._socket >= 0:
            os.close(self._socket)
            self._socket = -1
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        if os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0


def _answer_of(line: bytes) -> Answer | None:
    """What comes out of a process with NVIDIA's library in it may be anything."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    gpus = found.get("gpus") if isinstance(found, dict) else None
    if not (isinstance(gpus, list) and len(gpus) <= MOST_GPUS and all(isinstance(gpu, dict) for gpu in gpus)):
        return None
    words = [found.get("driver"), *(gpu.get(name) for gpu in gpus for name in ("uuid", "bus_id", "serial", "name"))]
    return found if all(word is None or (isinstance(word, str) and len(word) <= LONGEST) for word in words) else None


def _keep_only(talking: socket.socket) -> socket.socket:  # pragma: no cover - in the child only
    """No client of the owner's waits for a connection that is open here, too."""
    os.dup2(talking.detach(), KEPT)
    os.closerange(KEPT + 1, HIGHEST)
    return socket.socket(fileno=KEPT)


def _serve(talking: socket.socket, make: Callable[[], Read]) -> None:  # pragma: no cover - in the child only
    """Until the other side closes. Whatever goes wrong ends this process, and its owner hears that."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        read = make()
        while talking.recv(1):
            talking.sendall(json.dumps(read()).encode() + b"\n")
    finally:
        os._exit(1)


def open_library(driver_root: str) -> Read:  # pragma: no cover - in the child only
    """NVIDIA's library of the guest, where the boot found it."""
    from guest_cdi.discover.tree import Tree
    from guest_cdi.host import LinuxHost
    from guest_cdi.nvml import load
    from nvrc.beside.gpus import read_machine
    from nvrc.beside.zeros import give_back

    library, *_others = Tree(LinuxHost(), driver_root or "/").find_libraries(NVML)
    nvml = load(library)
    nvml.nvmlInit()
    give_back(library)
    return lambda: read_machine(nvml)
