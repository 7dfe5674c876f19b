# SPDX-License-Identifier: Apache-2.0
"""The seam: everything that touches the machine goes through one of four roles. `System` is their sum.

A consumer asks for the role that it needs, for `System` when it needs several, and declares no part of them anew.
Paths are absolute as the guest sees them; the root they hang from is part of the role. `FakeSystem` (tests/fakes)
has real files in a folder and records what goes to the other roles; `LinuxSystem` (linux_system.py) is the machine.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable, Iterator, NamedTuple, Protocol, TypeVar
from nvrc.machine.children import Ended, nobody
from nvrc.machine.program import Program
from nvrc.machine.waits import Waits

if TYPE_CHECKING:
    from _queue import SimpleQueue

    from nvrc.machine.rights import Privileges

T = TypeVar("T")

KERN_EMERG, KERN_DEBUG = 0, 7

Output = Callable[[int, str], None]  # a descriptor that has a program's output to read, and the program's name for it
Echo = Callable[[int], None]  # a descriptor that has output to read which belongs on the console
Task = Callable[[int], None]  # what a forked worker does, given where it answers


class Node(NamedTuple):
    """What has a name in /dev: kind and permissions as in st_mode, and the numbers of a device."""

    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0


class Subscription(Protocol):
    """Listening to events of devices; those that came since the last wait end the next one at once."""

    def wait(self, timeout_s: float) -> None: ...
    def close(self) -> None: ...


class Readable(Protocol):
    """The part of Files that a machine has which is only recorded or imagined."""

    def read(self, path: str, limit: int = 1 << 20) -> bytes: ...
    def list_dir(self, path: str) -> tuple[str, ...]: ...


class Files(Readable, Protocol):
    """What has a name below the root. Everything raises OSError as the kernel gives it, here and in the other roles."""

    def write(self, path: str, data: bytes) -> None: ...
    def publish(self, path: str, data: bytes, mode: int = 0o644) -> None: ...
    def append(self, path: str, data: bytes, limit: int) -> None: ...
    def resolve(self, path: str) -> str: ...  # without symbolic links
    def exists(self, path: str, *, executable: bool = False) -> bool: ...
    def find_node(self, path: str) -> Node | None: ...
    def make_dir(self, path: str, mode: int = 0o755) -> None: ...
    def make_link(self, path: str, target: str) -> None: ...
    def share_socket(self, path: str, target: str) -> None: ...  # a second name; no link is followed
    def read_plain(self, path: str, limit: int) -> bytes: ...  # of a folder that others write: a regular file only
    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None: ...
    def open_reader(self, path: str) -> int: ...
    def open_root(self, pid: int) -> int: ...
    def connect(self, path: str) -> int: ...
    def bind_log(self, path: str) -> int: ...
    def listen_control(self, path: str) -> int: ...


class Kernel(Protocol):
    """What reaches beyond a folder or cannot be taken back, what the kernel tells, and its boot clock."""

    waits: Waits

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None: ...
    def refused_options(self, fstype: str, options: tuple[str, ...]) -> tuple[str, ...]: ...
    def set_hostname(self, name: str) -> None: ...
    def raise_loopback(self) -> None: ...
    def drop_audit_messages(self) -> None: ...  # those of programs, from the kernel's log
    def load_module(self, image: str | bytes, options: str, *, compressed: bool = False) -> None: ...
    def make_node(self, path: str, node: Node) -> None: ...
    def shut_devices(self, cgroups: str, majors: tuple[int, ...]) -> int: ...  # to all outside the root cgroup
    def open_devices(self, cgroups: str, gate: int) -> None: ...  # what was shut
    def ioctl(self, path: str, request: int, data: bytes) -> bytes: ...
    def listen_vsock(self, port: int) -> int: ...
    def listen_tcp(self, port: int) -> int: ...
    def listen_uevents(self) -> Subscription: ...
    def kernel_records(self) -> Iterator[bytes]: ...
    def forbid_tracing(self) -> None: ...  # no process but one with CAP_SYS_PTRACE looks into this one
    def power_off(self) -> None: ...
    def restart(self) -> None: ...
    def now(self) -> float: ...
    def wait(self, queue: SimpleQueue[T], limit_s: float) -> T | None: ...


class Processes(Protocol):
    """Programs and forked workers, from birth to reaping.

    `output` is told of every descriptor that has the output of a program with a name in the journal, `echo` of those
    whose output goes to the console; without it they have the console themselves.
    """

    output: Output
    echo: Echo | None

    def start(self, program: Program, ended: Ended = nobody) -> int: ...
    def fork(self, task: Task, privileges: Privileges, ended: Ended = nobody,
             questions: int = -1) -> tuple[int, int]: ...
    def signal(self, pid: int, number: int) -> None: ...
    def reap(self) -> list[tuple[int, int]]: ...


class Console(Protocol):
    """Where people read."""

    def say(self, line: str, level: int = KERN_EMERG) -> None: ...


class System(Files, Kernel, Processes, Console, Protocol):
    """All that a step may do to the machine."""
