# SPDX-License-Identifier: Apache-2.0
"""A System for tests: real files in a folder, and three roles that only record what they are asked for.

What a step reads and writes is what the kernel would show. Any effect can be made to fail:
`fail["mount /proc"] = OSError(...)`.
"""

from __future__ import annotations

import bisect
import os
import stat
from _queue import SimpleQueue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeVar

from nvrc.machine.children import Children, Ended, nobody
from nvrc.machine.files import LinuxFiles, find_node
from nvrc.machine.processes import LinuxProcesses
from nvrc.machine.program import Program
from nvrc.machine.rights import Privileges
from nvrc.machine.system import KERN_EMERG, Echo, Node, Output, Task
from nvrc.machine.waits import Waits

T = TypeVar("T")

# What a device answers to an ioctl: request and structure in, structure out, or OSError.
Device = Callable[[int, bytes], bytes]


@dataclass
class Recorded:
    """What all roles of the fake write their effects to."""

    root: str
    effects: list[str] = field(default_factory=list)
    fail: dict[str, OSError] = field(default_factory=dict)
    images: list[bytes] = field(default_factory=list)

    def _effect(self, what: str) -> None:
        if error := self.fail.get(what):
            raise error
        self.effects.append(what)

    def _refuse(self, what: str) -> None:
        if error := self.fail.get(what):
            raise error


class FakeFiles(Recorded, LinuxFiles):
    """Real ones."""

    def __post_init__(self) -> None:
        LinuxFiles.__init__(self, self.root)

    def put_group(self, pid: int, gid: int) -> None:
        """What the kernel says of a process's group."""
        self.put(f"/proc/{pid}/status", f"Name:\tx\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n")

    def put(self, path: str, text: str | bytes = "", mode: int = 0o644) -> None:
        """A file of the guest, with its directories."""
        real = self.real_path(path)
        os.makedirs(os.path.dirname(real), exist_ok=True)
        with open(real, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        os.chmod(real, mode)

    def text(self, path: str) -> str:
        return self.read(path).decode()

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        self._refuse(f"read {path}")
        return super().read(path, limit)

    def write(self, path: str, data: bytes) -> None:
        self._effect(f"write {path} {data.decode(errors='replace')}")
        self._refuse(f"write {path}")
        super().write(path, data)

    def append(self, path: str, data: bytes, limit: int) -> None:
        self._refuse(f"append {path}")
        super().append(path, data, limit)

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self._effect(f"mkdir {path}")
        super().make_dir(path, mode)

    def make_link(self, path: str, target: str) -> None:
        self._effect(f"link {path} {target}")
        super().make_link(path, target)

    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None:
        self._effect(f"own {path} {uid}:{gid} {mode:o}")
        super().set_owner(path, uid, gid, mode)

    def open_reader(self, path: str) -> int:
        self._effect(f"open {path}")
        return super().open_reader(path)

    def bind_log(self, path: str) -> int:
        self._effect(f"bind {path}")
        return super().bind_log(path)


@dataclass
class FakeKernel(Recorded):
    """Records what it is asked for. Its clock moves when somebody waits, or when told; nobody sleeps."""

    waits: Waits = field(default_factory=Waits)
    clock: float = 100.0
    nodes: dict[str, Node] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    # Listening sockets, one for each time that somebody asks for a port.
    vsock: list[int] = field(default_factory=list)
    tcp: list[int] = field(default_factory=list)
    refused: tuple[str, ...] | OSError = ()
    kernel_log: list[bytes] = field(default_factory=list)
    # What happens to the machine while somebody waits for uevents, one wait after another; then time just passes.
    happenings: list[Callable[[], None]] = field(default_factory=list)
    # What happens at some time while a step waits for it, see `later`.
    schedule: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    # What loading a module brings along, by its file (or "memory").
    on_load: dict[str, Callable[[], None]] = field(default_factory=dict)

    def later(self, after_s: float, happen: Callable[[], None]) -> None:
        """Something happens that many seconds from now, if somebody waits that long."""
        bisect.insort(self.schedule, (self.clock + after_s, happen), key=itemgetter(0))

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        self._effect(f"mount {target}")
        self.effects[-1] = f"mount {source} {target} {fstype} {flags:#x} {data}".rstrip()

    def refused_options(self, fstype: str, options: tuple[str, ...]) -> tuple[str, ...]:
        """Those that the test says the kernel does not take."""
        if isinstance(self.refused, OSError):
            raise self.refused
        return tuple(option for option in options if option in self.refused)

    def set_hostname(self, name: str) -> None:
        self._effect(f"hostname {name}")

    def raise_loopback(self) -> None:
        self._effect("raise lo")

    def drop_audit_messages(self) -> None:
        self._effect("drop audit messages")

    def load_module(self, image: str | bytes, options: str, *, compressed: bool = False) -> None:
        name = image if isinstance(image, str) else "memory"
        if isinstance(image, bytes):
            self.images.append(image)
        self._effect(f"load {name}")
        self.effects[-1] = f"load {name}{' compressed' if compressed else ''} {options}".rstrip()
        self.on_load.get(name, lambda: None)()

    def forbid_tracing(self) -> None:
        self._effect("forbid tracing")

    def make_node(self, path: str, node: Node) -> None:
        """Refuses what the real one would refuse."""
        found = self.nodes.get(path) or find_node(self.root + path)
        if found and (stat.S_IFMT(found.mode), *found[1:3]) != (stat.S_IFMT(node.mode), *node[1:3]):
            raise FileExistsError(17, "File exists")
        kind = "c" if stat.S_ISCHR(node.mode) else "b"
        self._effect(f"node {path}")
        self.effects[-1] = (f"node {path} {kind} {node.major}:{node.minor} {stat.S_IMODE(node.mode):o}"
                            f" {node.uid}:{node.gid}")
        self.nodes[path] = node

    def shut_devices(self, cgroups: str, majors: tuple[int, ...]) -> int:
        self._effect(f"shut {cgroups}")
        self.effects[-1] = f"shut {cgroups} {majors}"
        return 77

    def open_devices(self, cgroups: str, gate: int) -> None:
        self._effect(f"open {cgroups} {gate}")

    def ioctl(self, path: str, request: int, data: bytes) -> bytes:
        if path not in self.devices:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.devices[path](request, data)

    def listen_vsock(self, port: int) -> int:
        """A unix socket in its place, if the test has given one."""
        self._effect(f"vsock {port}")
        if not self.vsock:
            raise OSError(19, "the machine has no vsock device")
        return self.vsock.pop(0)

    def listen_tcp(self, port: int) -> int:
        self._effect(f"tcp {port}")
        self._refuse(f"tcp {port}")
        return self.tcp.pop(0) if self.tcp else -1

    def listen_uevents(self) -> FakeEvents:
        self._effect("listen")
        return FakeEvents(self)

    def kernel_records(self) -> Iterator[bytes]:
        yield from self.kernel_log

    def power_off(self) -> None:
        self._effect("power off")

    def restart(self) -> None:
        self._effect("restart")

    def now(self) -> float:
        return self.clock

    def wait(self, queue: SimpleQueue[T], limit_s: float) -> T | None:
        began_s = self.clock
        try:
            return self._pass_time_until_filled(queue, limit_s)
        finally:
            self.waits.add(self.clock - began_s)

    def _pass_time_until_filled(self, queue: SimpleQueue[T], limit_s: float) -> T | None:
        """Time jumps to whatever happens next until there is something in the queue."""
        until_s = self.clock + max(0.0, limit_s)
        while queue.empty():
            due = next(iter(self.schedule), None)
            if due is None or due[0] > until_s:
                self.clock = until_s
                return None
            del self.schedule[0]
            self.clock = max(self.clock, due[0])
            due[1]()
        return queue.get_nowait()


@dataclass
class FakeProcesses(Recorded):
    """Records the programs, which have pids and never ran; they end when the test says so."""

    programs: list[Program] = field(default_factory=list)
    next_pid: int = 4710
    ended: list[tuple[int, int]] = field(default_factory=list)
    children: Children = field(default_factory=Children)
    output: Output = field(default=lambda descriptor, _name: os.close(descriptor))
    echo: Echo | None = None
    # Forks in earnest, where a test wants that.
    workers: LinuxProcesses | None = None

    def start(self, program: Program, ended: Ended = nobody) -> int:
        self._effect(f"start {program.path}")
        self.programs.append(program)
        self.next_pid += 1
        fields = ["S", "1", *["0"] * 17, str(int(self.now() * 100)), "0"]
        self.put(f"/proc/{self.next_pid}/stat", f"{self.next_pid} (x) {' '.join(fields)}\n")
        if program.privileges is not None:
            self.put_group(self.next_pid, program.privileges.account.gid)
        return self.children.bear(lambda: self.next_pid, ended)

    def fork(self, task: Task, privileges: Privileges, ended: Ended = nobody, questions: int = -1) -> tuple[int, int]:
        assert self.workers is not None, "a test that forks gives `workers`"
        return self.workers.fork(task, privileges, ended, questions)

    def reap(self) -> list[tuple[int, int]]:
        found, self.ended = self.ended, []
        for child in found:
            self.children.died(*child)
        return found

    def signal(self, pid: int, number: int) -> None:
        self._effect(f"signal {pid} {number}")


@dataclass
class FakeConsole(Recorded):
    said: list[str] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)

    def say(self, line: str, level: int = KERN_EMERG) -> None:
        self.said.append(line)
        self.levels.append(level)


@dataclass
class FakeSystem(FakeFiles, FakeKernel, FakeProcesses, FakeConsole):
    """Has no method of the real Kernel, Processes and Console: what a fake forgets to record cannot happen."""

    def find_node(self, path: str) -> Node | None:
        return self.nodes.get(path) or super().find_node(path)


@dataclass
class FakeEvents:
    system: FakeKernel

    def wait(self, timeout_s: float) -> None:
        if self.system.happenings:
            self.system.happenings.pop(0)()
        else:
            self.system.clock += timeout_s

    def close(self) -> None:
        self.system.effects.append("unlisten")


@dataclass
class RecordingSystem(FakeSystem):
    """`limits`: how much of each file was asked for last, by the file's name."""

    limits: dict[str, int] = field(default_factory=dict)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        self.limits[path.rpartition("/")[2]] = limit
        return super().read(path, limit)


def bare_guest(root: str) -> FakeSystem:
    """A guest as the kernel leaves it for the init of an initramfs, plus the files that mounts would bring."""
    system = FakeSystem(root)
    for directory in ("/dev", "/run", "/tmp", "/sys/bus/pci/devices", "/proc/sys/kernel", "/sys/fs/cgroup"):
        os.makedirs(system.real_path(directory), exist_ok=True)
    system.put("/proc/self/mounts", "rootfs / rootfs rw 0 0\n")
    system.put("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\nmemory\t0\t1\t1\n"
               "devices\t0\t1\t1\nmisc\t0\t1\t1\n")
    system.put("/proc/filesystems", "nodev\tproc\nnodev\ttmpfs\nnodev\tsecurityfs\nnodev\tconfigfs\n\text4\n")
    system.put("/proc/cmdline", "console=ttyS0 quiet\n")
    for name in ("rmem_default", "wmem_default", "rmem_max", "wmem_max"):
        system.put(f"/proc/sys/net/core/{name}", "212992\n")
    system.put("/proc/sys/net/unix/max_dgram_qlen", "10\n")
    for name in ("kernel/kptr_restrict", "kernel/randomize_va_space", "kernel/panic_on_oops", "fs/suid_dumpable",
                 "fs/protected_symlinks", "fs/protected_hardlinks", "fs/protected_fifos", "fs/protected_regular"):
        system.put(f"/proc/sys/{name}", "0\n")
    system.put("/proc/sys/kernel/printk_devkmsg", "ratelimit\n")
    system.put("/proc/sys/kernel/ctrl-alt-del", "1\n")
    system.put("/proc/sys/kernel/modules_disabled", "0\n")
    system.put("/proc/sys/kernel/osrelease", "6.12.0-test\n")
    system.put("/dev/kmsg")
    system.put("/etc/hostname", "guest\n")
    system.put("/usr/bin/kata-agent", "#!", 0o755)
    return system
