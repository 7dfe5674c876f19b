# SPDX-License-Identifier: Apache-2.0
"""Programs and forked workers: started below a root, told by their output, reaped with whoever waits for them."""

from __future__ import annotations

import os

from guest_cdi.lean.light import TYPE_CHECKING
from nvrc.machine import linux
from nvrc.machine.children import Children, Ended, nobody, work
from nvrc.machine.files import Rooted
from nvrc.machine.program import Program, load_confinement, open_output, start, start_piped
from nvrc.machine.system import Echo, Output, Task
from nvrc.vocabulary.signals import signal

if TYPE_CHECKING:
    from nvrc.machine.rights import Privileges

REAPED = 1024  # in one turn


class LinuxProcesses(Rooted):
    def __init__(self, root: str = "/") -> None:
        super().__init__(root)
        self._children = Children()
        self.output: Output = lambda descriptor, _name: os.close(descriptor)
        self.echo: Echo | None = None

    def start(self, program: Program, ended: Ended = nobody) -> int:
        return self._children.bear(lambda: self._start(program), ended)

    def _start(self, program: Program) -> int:
        root = self._root or "/"
        if program.log_as:
            return start_piped(program, root, lambda reading: self.output(reading, program.log_as))
        if program.echoed and self.echo is not None:
            return start_piped(program, root, self.echo)
        return start(program, root)

    def fork(self, task: Task, privileges: Privileges, ended: Ended = nobody,
             questions: int = -1) -> tuple[int, int]:
        """A copy of this process that does one task and is gone: its pid, and where its answers come. Its input is
        `questions`. These are pipes: by a socket it could send descriptors, and have PID 1 wait for their end.
        """
        writing = open_output(lambda reading: self.output(reading, "worker"))
        answers, answering = os.pipe2(os.O_CLOEXEC)
        confine = load_confinement(privileges)

        def start() -> int:
            pid = os.fork()
            if pid == 0:  # pragma: no cover - the child
                work(task, questions, answering, writing, confine)
            return pid

        try:
            return self._children.bear(start, ended), answers
        except OSError:
            os.close(answers)
            raise
        finally:
            os.close(answering)
            os.close(writing)

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def reap(self) -> list[tuple[int, int]]:
        """Children that have ended, as (pid, wait status); whoever waits for one is told. Daemons on many processors
        can end children as fast as they are reaped here: after some it is others' turn, and SIGCHLD brings the rest.
        """
        found: list[tuple[int, int]] = []
        while len(found) < REAPED and (child := linux.wait_any()):
            found.append(child)
            self._children.died(*child)
        if len(found) == REAPED:
            os.kill(os.getpid(), signal.SIGCHLD)
        return found
