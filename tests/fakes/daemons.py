# SPDX-License-Identifier: Apache-2.0
"""A guest whose daemons are played by the test: what they say, what the kernel says, when they end, on a fake clock."""

from __future__ import annotations

from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import PciFunction, Topology
from nvrc.machine.journal import Journal
from nvrc.machine.rights import Account
from nvrc.params.parse import parse
from nvrc.params.policy import NO_POLICY
from nvrc.vocabulary.mode import Mode

FIRST_PID = 4711


def gpu(index: int) -> PciFunction:
    return PciFunction(bdf=f"0000:{0x40 + index:02x}:00.0", vendor=0x10DE, device=0x2330, pci_class=0x030200)


def management(index: int) -> PciFunction:
    return PciFunction(bdf=f"0000:{0x60 + index:02x}:00.0", vendor=0x15B3, device=0x1021, pci_class=0x020700,
                       manages_switches=True)


class Stage:
    """The guest, its journal, and the script. Times count from the moment of the call."""

    def __init__(self, root: str) -> None:
        self.system: FakeSystem = bare_guest(root)
        self.journal = Journal(self.system)

    def facts(self, mode: Mode = Mode.GPU, *, gpus: int = 1, cmdline: str = "", gpu_root: str = "") -> Facts:
        nics = tuple(management(index) for index in range(4)) if mode.nvlink == 5 else ()
        return Facts(journal=self.journal, parameters=parse(f"quiet {cmdline}\n".encode(), NO_POLICY), mode=mode,
                     topology=Topology(gpus=tuple(gpu(index) for index in range(gpus)), management_nics=nics),
                     gpu_root=gpu_root)

    def program(self, path: str) -> None:
        self.system.put(path, "#!", 0o755)

    def says(self, after_s: float, text: str, uid: int | None = None, pid: int | None = None) -> None:
        """A datagram to /dev/log, as it is kept: without its priority. From what was started last, and as its user."""
        self.system.later(after_s, lambda: self.journal._hear(
            self._account().uid if uid is None else uid, 6, text, self.system.next_pid if pid is None else pid,
            gid=self._account().gid))

    def _account(self) -> Account:
        row = self.system.programs[-1].privileges if self.system.programs else None
        return row.account if row else Account(0, 0)

    def kernel_says(self, after_s: float, text: str) -> None:
        records = [f"3,1,1,-;{text}\n".encode()]

        def read(_descriptor: int) -> bytes:
            if not records:
                raise BlockingIOError
            return records.pop()

        self.system.later(after_s, lambda: self.journal.read_kernel(read))

    def ends(self, after_s: float, status: int = 0, pid: int = FIRST_PID) -> None:
        """A child ends; `status` is a wait status."""

        def happen() -> None:
            self.system.ended.append((pid, status))
            self.system.reap()

        self.system.later(after_s, happen)

    @property
    def commands(self) -> list[str]:
        return [" ".join((program.path, *program.args)) for program in self.system.programs]


def exited(status: int) -> int:
    """The wait status of a process that has exited."""
    return status << 8
