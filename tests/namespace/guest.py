# SPDX-License-Identifier: Apache-2.0
"""The namespace tier's guest: the real PID 1 code as PID 1 of namespaces of its own, on a root made for the test.

Run as a program (`python guest.py ROOT`) by `boot`, below `unshare`. Forking, reaping, signals, /dev/log, the agent's
namespaces and the power-off are real. What would reach the machine outside (file system mounts, sysctls, the kernel
log) meets plain files below ROOT instead, because steps only know paths below the System's root.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from fakes.steps import Doing
from nvrc.boot import BOOT
from nvrc.engine.table import Step, Table, seconds
from nvrc.machine import linux
from nvrc.machine.children import Ended, nobody
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.program import Program
from nvrc.machine.system import KERN_EMERG
from nvrc.pid1 import main as pid1
from nvrc.vocabulary import paths

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PORT = "/run/port"  # in the place of the agent's vsock port
NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL", "--propagation=private",
              "--mount-proc")


PATIENCE_S = 120
COMM_LENGTH = 15  # of a name, in /proc/PID/comm
PROCESS = re.compile(r"/proc/[0-9]+/(stat|status|cmdline)")


class NamespaceSystem(LinuxSystem):
    """Everything real but mounts and console lines, which are printed."""

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        self._only_as_init("mount")
        self.say(f"guest: mount {source} {target} {fstype} {data}")

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """Files of ROOT, but for what processes are: that is true in here as well."""
        if path != paths.OWN_STATUS and not PROCESS.fullmatch(path):
            return super().read(path, limit)
        with open(path, "rb") as file:
            return file.read(limit)

    def start(self, program: Program, ended: Ended = nobody) -> int:
        """With the limits that this machine allows: raising them takes a capability that a sandbox may withhold."""
        if not may_raise_limits():
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            program = replace(program, open_files=min(program.open_files or limit, limit), oom_score_adj=500)
        return super().start(program, ended)

    def say(self, line: str, level: int = KERN_EMERG) -> None:
        os.write(1, f"{line}\n".encode())

    def listen_vsock(self, port: int) -> int:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.bind(self.real_path(PORT))
        sock.listen()
        return sock.detach()

    def open_root(self, pid: int) -> int:
        """The real one: the process is real."""
        return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)

    def drop_audit_messages(self) -> None:
        self.say("guest: drop audit messages")

    def open_devices(self, cgroups: str, gate: int) -> None:
        self.say(f"guest: open {cgroups} {gate}")

    def refused_options(self, fstype: str, options: tuple[str, ...]) -> tuple[str, ...]:
        return ()  # of a kernel that has version 1; the one outside may have what it likes

    def open_reader(self, path: str) -> int:
        return os.pipe()[0]  # a kernel log that stays silent: the real one belongs to the machine outside

    def kernel_records(self):  # type: ignore[no-untyped-def]
        return iter(())


def may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE (24)."""
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


@dataclass
class Guest:
    """A running guest, seen from outside."""

    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    def read_until(self, text: str) -> str:
        """The first line that has `text`; fails with the whole console when the guest ends before, or never says it."""
        assert self.process.stdout is not None
        patience = threading.Timer(PATIENCE_S, self.process.kill)
        patience.start()
        try:
            while raw := self.process.stdout.readline():
                self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                if text in self.lines[-1]:
                    return self.lines[-1]
        finally:
            patience.cancel()
        raise AssertionError(f"{text!r} never came; console:\n" + "\n".join(self.lines))

    def finish(self, timeout_s: float = 60) -> int:
        """The rest of the console, and the exit status of the namespace."""
        assert self.process.stdout is not None
        try:
            rest, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.lines += rest.decode(errors="replace").splitlines()
        return self.process.returncode

    def end(self) -> None:
        """Whatever it is doing."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def children(self) -> list[int]:
        """PID 1 of the guest, as the machine outside numbers it: the only child of `unshare`."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]

    def daemon(self, name: str) -> int:
        """A child of PID 1 that is called so, as the machine outside numbers it."""
        init, = self.children()
        for pid in Path(f"/proc/{init}/task/{init}/children").read_text(encoding="ascii").split():
            if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == name[:COMM_LENGTH]:
                return int(pid)
        raise AssertionError(f"no {name} below {init}; console:\n" + "\n".join(self.lines))

    def signal(self, number: int) -> None:
        """To PID 1 of the guest."""
        os.kill(self.children()[0], number)

    def found(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


def boot(root: str, *, table: str = "") -> Guest:
    """Start a guest on `root`. `table` names a function of this file that changes the boot table."""
    command = ["unshare", *NAMESPACES, sys.executable, os.path.abspath(__file__), root, table]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}
    return Guest(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env=environment, bufsize=0))  # communicate() would pass over what a buffer holds


def with_agent(**changes: object) -> Table:
    """The row of the agent changed. What comes behind it (`attest`) has a condition of its own, and is skipped in here."""
    return tuple(replace(step, **changes) if step.name == "agent" else step for step in BOOT)  # type: ignore[arg-type]


def broken_step() -> Table:
    def explode(_system: object, _facts: object) -> object:
        raise RuntimeError("on purpose")

    return with_agent(does=Doing(explode))


def hanging_step() -> Table:
    def hang(_system: object, _facts: object) -> object:
        time.sleep(30)
        return None

    return with_agent(does=Doing(hang, seconds(0.3)))


def faulting_step() -> Table:
    def fault(_system: object, _facts: object) -> object:
        import ctypes

        return ctypes.string_at(8)

    return with_agent(does=Doing(fault))


def until_told(system: NamespaceSystem, facts: object) -> object:
    while not system.exists("/run/told"):
        time.sleep(0.02)
    return facts


def slow_thread() -> Table:
    """A step beside the loop that takes until the test has seen that it was told of."""
    from nvrc.engine.conditions import always
    agent = next(step for step in BOOT if step.name == "agent")
    return (Step("linger", needs=("parameters",), blocks=always, does=Doing(until_told)),  # type: ignore[arg-type]
            *with_agent(needs=(*agent.needs, "linger")))


def slow_attest() -> Table:
    """The step that runs beside the agent takes that long."""
    from nvrc.engine.conditions import always
    return tuple(replace(step, when=always, blocks=always, does=Doing(until_told)) if step.name == "attest" else step  # type: ignore[arg-type]
                 for step in BOOT)


def slow_step() -> Table:
    def linger(system: NamespaceSystem, facts: object) -> object:
        system.say("guest: lingering")
        time.sleep(1)
        return facts

    return (replace(BOOT[0], does=Doing(linger), needs=()), *BOOT[1:])  # type: ignore[arg-type]


def flooded_boot() -> Table:
    """Something logs without end while the boot goes on."""
    def flood(system: NamespaceSystem, facts: object) -> object:
        system.start(Program(path="/usr/bin/kata-agent", privileges=None, args=("flood:100000",)))
        return facts

    return (*BOOT[:2], Step("flood", needs=("journal",), does=Doing(flood)), *BOOT[2:])  # type: ignore[arg-type]


def gpu_daemons() -> Table:
    """The rows that need no driver, and those of daemons: what is between them needs hardware."""
    needs = {"persistenced": ("journal", "loopback", "topology"), "dcgm": ("persistenced",)}
    kept = ("filesystems", "journal", "parameters", "identity", "loopback", "topology", "persistenced", "dcgm", "agent")
    return tuple(replace(step, needs=needs.get(step.name) or tuple(name for name in step.needs if name in kept))
                 for step in BOOT if step.name in kept)


def early_agent() -> Table:
    """The agent runs while GPUs attach, which takes for ever, or until there is a file /run/attached."""
    from _queue import SimpleQueue

    from nvrc.engine.conditions import always
    from nvrc.nvml.promised import Promise

    def promise(system: NamespaceSystem, facts: object) -> object:
        system.make_dir(paths.GPUS_FOLDER)
        return replace(facts, promise=Promise({}, 0))  # type: ignore[type-var]

    def attach(system: NamespaceSystem, facts: object) -> object:
        nothing: SimpleQueue[None] = SimpleQueue()
        while not system.exists("/run/attached"):
            system.wait(nothing, 0.02)
        return facts

    rows = {"promise": (promise, ("parameters", "journal")), "persistenced": (attach, ("agent",))}
    kept = ("filesystems", "journal", "hardening", "parameters", "identity", "loopback", "agent")
    return tuple(replace(step, when=always, blocks=always, does=Doing(rows[step.name][0]), needs=rows[step.name][1])  # type: ignore[arg-type]
                 if step.name in rows else
                 replace(step, needs=tuple(name for name in step.needs if name in (*kept, "promise")))
                 for step in BOOT if step.name in (*kept, *rows))


def known_nics() -> Table:
    """NICs are looked at; their documents, which a worker makes of the whole machine, have a test of their own."""
    from nvrc.steps import nics

    return tuple(replace(step, does=Doing(nics.look)) if step.name == "nics" else step for step in BOOT)  # type: ignore[arg-type]


TABLES = {"": lambda: BOOT, "known_nics": known_nics, "broken_step": broken_step, "hanging_step": hanging_step, "slow_step": slow_step,
          "faulting_step": faulting_step, "slow_thread": slow_thread, "slow_attest": slow_attest,
          "flooded_boot": flooded_boot, "early_agent": early_agent, "gpu_daemons": gpu_daemons}


def main(root: str, table: str) -> None:
    coverage = sys.modules.get("coverage")  # started by its own hook where the tier is measured
    measured = coverage.Coverage.current() if coverage else None
    if os.getpid() != 1:
        sys.exit("this is the inside of a namespace tier guest; call boot()")
    system = NamespaceSystem(root)
    linux.mount(system.real_path("/"), system.real_path("/"), "", linux.MS_BIND)  # what a confined daemon has as its root
    os.chmod(system.real_path("/"), 0o755)
    if system.exists("/etc/read-only-root"):
        make_read_only(system)
    if system.exists("/etc/full-run"):
        linux.mount("full", system.real_path("/run/nvrc"), "tmpfs", 0, "size=4k")
        system.write("/run/nvrc/filler", b"x" * 4096)
    pid1.run(system, TABLES[table](), last=lambda: tell_and_save(system, measured))


def make_read_only(system: NamespaceSystem) -> None:
    """The root as a verified disk gives it: what is written goes to the file systems that are mounted on it."""
    linux.mount(system.real_path("/"), system.real_path("/"), "", linux.MS_BIND)
    for path in ("/dev", "/run", "/proc"):
        kept = f"{system.real_path('/')}/../kept{path}"
        shutil.copytree(system.real_path(path), kept, symlinks=True)
        linux.mount("tmpfs", system.real_path(path), "tmpfs", 0)
        shutil.copytree(kept, system.real_path(path), symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(kept)
    linux.mount("", system.real_path("/"), "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)
    try:
        system.write("/etc/probe", b"")
    except OSError:
        return
    sys.exit("the root is still writable")


def tell_and_save(system: NamespaceSystem, measured: object) -> None:
    zombies = sum(1 for pid in os.listdir("/proc") if pid.isdigit() and is_zombie(pid))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    system.say(f"guest: zombies={zombies} peak_kib={peak_kib}")
    if measured is not None:
        measured.stop()  # type: ignore[attr-defined]
        measured.save()  # type: ignore[attr-defined]


def is_zombie(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(sys.argv[1], sys.argv[2])
