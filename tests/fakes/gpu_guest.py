# SPDX-License-Identifier: Apache-2.0
"""A guest with GPUs up to the point where NVIDIA's library is used: driver files, the stand-in library, described nodes.

The worker is the real one, forked for real. What a step does to the machine itself goes to a FakeSystem.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fakes.machine import DescribedHost, Machine, Node, add_library
from fakes.nvml import MockNvml
from fakes.system import FakeSystem
from guest_cdi.host import LinuxHost
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import PciFunction, Topology
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.system import Node as SystemNode
from nvrc.nvml.client import prepare_worker
from nvrc.nvml.worker import Worker
from nvrc.params.parse import parse
from nvrc.params.policy import NO_POLICY
from nvrc.steps import cc_check, cdi, gpu_settings, ready_state
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.paths import PCI_DEVICES

VERSION = "580.95.05"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
CONFIDENTIAL = "cc environment=prod feature=on devtools=off multigpu=none cpu=tdx gpus=capable"
STEPS = (gpu_settings.run, cc_check.run, cdi.run, ready_state.run)


class _Measured(LinuxSystem):
    """A worker that is killed saves nothing of its coverage, so it gets a moment to end by itself."""

    def signal(self, pid: int, number: int) -> None:
        descriptor = os.pidfd_open(pid)
        try:
            _is_gone(descriptor, 500)
        finally:
            os.close(descriptor)
        super().signal(pid, number)


def _is_gone(descriptor: int, patience_ms: int) -> bool:
    gone = select.poll()
    gone.register(descriptor, select.POLLIN)
    return bool(gone.poll(patience_ms))


def _see_off(pid: int, patience_ms: int = 5000) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # reaped by the test
    try:
        if not _is_gone(descriptor, patience_ms):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass
    finally:
        os.close(descriptor)


def bus_id(number: int) -> str:
    return f"0000:{0x1A + number:02x}:00.0"


class MakeGuest(Protocol):
    """The fixture `gpu_guest`: GpuGuest's arguments but the library and the folder."""

    def __call__(self, cmdline: str = "", *, gpus: int = 2, on_bus: int | None = None, keys: str = "", text: str = "",
                 extension: str = "", shipped_hook: bool = True) -> GpuGuest: ...


class GpuGuest:
    """`gpus`: how many NVML knows; `on_bus`: how many the bus has, as many if not given. `text`: more of the machine.

    `keys`: what each GPU line says beyond its place. Minor numbers run against the order of the bus.
    """

    def __init__(self, built: Path, folder: Path, cmdline: str = "", *, gpus: int = 2, on_bus: int | None = None,
                 keys: str = "", text: str = "", extension: str = "", shipped_hook: bool = True) -> None:
        self.root = folder
        self.gpus = gpus
        self.keys = keys
        self.extension = extension
        machine = self._machine(shipped_hook)
        machine.build(folder)
        self.mock = MockNvml(built, folder / (extension + LIBRARIES).lstrip("/"), "")
        self.describe(text)
        self._nodes = machine.nodes
        self.host = DescribedHost(LinuxHost(str(folder)), self._nodes)
        self.system = FakeSystem(str(folder))
        self.system.nodes |= {path: SystemNode(stat.S_IFCHR | node.mode, node.major, node.minor)
                              for path, node in self._nodes.items()}
        self.system.put("/proc/devices", "Character devices:\n195 nvidia\n511 nvidia-caps\n\nBlock devices:\n")
        self._pids: list[int] = []
        buses = tuple(PciFunction(bdf=bus_id(i), vendor=0x10DE, device=0x2330, pci_class=0x030200)
                      for i in range(gpus if on_bus is None else on_bus))
        for function in buses:
            self.plug_in(function)
        parsed = parse(cmdline.encode(), NO_POLICY)
        parsed.raise_on_error()
        ledger = tuple(GpuRecord(bdf=function.bdf, state=GpuState.ATTACHED) for function in buses)
        self.facts = Facts(parameters=parsed, topology=Topology(gpus=buses), gpu_root=extension, ledger=ledger)

    def plug_in(self, function: PciFunction) -> None:
        """The bus shows it from now on."""
        folder = f"{PCI_DEVICES}/{function.bdf}"
        self.system.put(f"{folder}/vendor", f"{function.vendor:#06x}\n")
        self.system.put(f"{folder}/device", f"{function.device:#06x}\n")
        self.system.put(f"{folder}/class", f"{function.pci_class:#08x}\n")

    def describe(self, text: str) -> None:
        lines = (f"gpu {i} bus={bus_id(i)} minor={self.gpus - 1 - i} {self.keys}" for i in range(self.gpus))
        self.mock.describe("\n".join([*lines, text]))

    def lose_node(self, path: str, *, described: bool = False) -> None:
        """The file that stands for a device node is gone, and unless `described` so is what the worker sees there."""
        (self.root / path.lstrip("/")).unlink()
        del self.system.nodes[path]
        if not described:
            del self._nodes[path]

    def start(self) -> Worker:
        """A worker on this guest, that the test's end ends."""
        system = (_Measured if "coverage" in sys.modules else LinuxSystem)(str(self.root))
        worker = prepare_worker(system, self.facts.driver_root, root=str(self.root), host=self.host)
        self._pids.append(worker.pid)
        self.facts = replace(self.facts, worker=worker)
        return worker

    def boot(self, last: int = len(STEPS)) -> Facts:
        """The steps that use the library, in order."""
        if self.facts.worker is None:
            self.start()
        for step in STEPS[:last]:
            self.facts = step(self.system, self.facts)
        return self.facts

    def end(self) -> None:
        """Workers end when nobody can ask them any more; those that hang are killed."""
        if self.facts.worker is not None:
            self.facts.worker.stop()
        for pid in self._pids:
            _see_off(pid)
        self._pids.clear()

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def _machine(self, shipped_hook: bool) -> Machine:
        machine = Machine(links={"/var/run": "../run"}, directories=["/run", "/var"], driver=VERSION)
        add_library(machine, self.extension + LIBRARIES, f"libcuda.so.{VERSION}", "libcuda.so.1")
        hook = f"{self.extension}/bin/nvidia-cdi-hook" if shipped_hook else "/usr/bin/nvidia-cdi-hook"
        machine.files[hook] = (0o755, b"")
        machine.nodes["/dev/nvidiactl"] = Node(major=195, minor=255)
        minors = []
        for gpu in range(self.gpus):
            machine.nodes[f"/dev/nvidia{gpu}"] = Node(major=195, minor=gpu)
            for gi in range(15):
                first = 3 + 135 * gpu + 9 * gi
                minors += [f"gpu{gpu}/gi{gi}/access {first}", f"gpu{gpu}/gi{gi}/ci0/access {first + 1}"]
                for minor in (first, first + 1):
                    machine.nodes[f"/dev/nvidia-caps/nvidia-cap{minor}"] = Node(major=511, minor=minor, mode=0o444)
        machine.files["/proc/driver/nvidia-caps/mig-minors"] = (0o444, "\n".join(minors).encode())
        return machine
