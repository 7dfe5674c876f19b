# SPDX-License-Identifier: Apache-2.0
"""A System for tests: a real directory below `root`, a clock that moves when told, and a journal of effects.

Files are real, so what a step reads and writes is what the kernel would show. Mounts, names, programs and power are
only recorded. Any effect can be made to fail: `fail["mount /proc"] = OSError(...)`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from nvrc.children import Ended, nobody
from nvrc.program import Program
from nvrc.system import KERN_EMERG, LinuxSystem


@dataclass
class FakeSystem(LinuxSystem):
    root: str
    effects: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    fail: dict[str, OSError] = field(default_factory=dict)
    clock: float = 100.0
    programs: list[Program] = field(default_factory=list)
    next_pid: int = 4710
    ended: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def put(self, path: str, text: str | bytes = "", mode: int = 0o644) -> None:
        """A file of the guest, with its directories."""
        real = self.real_path(path)
        os.makedirs(os.path.dirname(real), exist_ok=True)
        with open(real, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        os.chmod(real, mode)

    def text(self, path: str) -> str:
        return self.read(path).decode()

    def _effect(self, what: str) -> None:
        if error := self.fail.get(what):
            raise error
        self.effects.append(what)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        if error := self.fail.get(f"read {path}"):
            raise error
        return super().read(path, limit)

    def write(self, path: str, data: bytes) -> None:
        self._effect(f"write {path} {data.decode()}")
        if error := self.fail.get(f"write {path}"):
            raise error
        super().write(path, data)

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self._effect(f"mkdir {path}")
        super().make_dir(path, mode)

    def make_link(self, path: str, target: str) -> None:
        self._effect(f"link {path} {target}")
        super().make_link(path, target)

    def append(self, path: str, data: bytes, limit: int) -> None:
        if error := self.fail.get(f"append {path}"):
            raise error
        super().append(path, data, limit)

    def open_reader(self, path: str) -> int:
        self._effect(f"open {path}")
        return super().open_reader(path)

    def bind_log(self, path: str) -> int:
        self._effect(f"bind {path}")
        return super().bind_log(path)

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        self._effect(f"mount {target}")
        self.effects[-1] = f"mount {source} {target} {fstype} {flags:#x} {data}".rstrip()

    def set_hostname(self, name: str) -> None:
        self._effect(f"hostname {name}")

    def raise_loopback(self) -> None:
        self._effect("raise lo")

    def start(self, program: Program, ended: Ended = nobody) -> int:
        self._effect(f"start {program.path}")
        self.programs.append(program)
        self.next_pid += 1
        return self._children.born(self.next_pid, ended)

    def reap(self) -> list[tuple[int, int]]:
        """The children that the test says have ended."""
        found, self.ended = self.ended, []
        for child in found:
            self._children.died(*child)
        return found

    def signal(self, pid: int, number: int) -> None:
        self._effect(f"signal {pid} {number}")

    def power_off(self) -> None:
        self._effect("power off")

    def restart(self) -> None:
        self._effect("restart")

    def now(self) -> float:
        return self.clock

    def say(self, line: str, level: int = KERN_EMERG) -> None:
        self.said.append(line)


def bare_guest(root: str) -> FakeSystem:
    """A guest as the kernel leaves it for the init of an initramfs, plus the files that mounts would bring."""
    system = FakeSystem(root)
    for directory in ("/dev", "/run", "/tmp", "/sys/bus/pci/devices", "/proc/sys/kernel", "/sys/fs/cgroup"):
        os.makedirs(system.real_path(directory), exist_ok=True)
    system.put("/proc/self/mounts", "rootfs / rootfs rw 0 0\n")
    system.put("/proc/filesystems", "nodev\tproc\nnodev\ttmpfs\nnodev\tsecurityfs\nnodev\tconfigfs\n\text4\n")
    system.put("/proc/cmdline", "console=ttyS0 quiet\n")
    for name in ("rmem_default", "wmem_default", "rmem_max", "wmem_max"):
        system.put(f"/proc/sys/net/core/{name}", "212992\n")
    system.put("/proc/sys/net/unix/max_dgram_qlen", "10\n")
    system.put("/proc/sys/kernel/printk_devkmsg", "ratelimit\n")
    system.put("/proc/sys/kernel/ctrl-alt-del", "1\n")
    system.put("/proc/sys/kernel/modules_disabled", "0\n")
    system.put("/dev/kmsg")
    system.put("/etc/hostname", "guest\n")
    system.put("/usr/bin/kata-agent", "#!", 0o755)
    return system
