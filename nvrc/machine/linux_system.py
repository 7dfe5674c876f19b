# SPDX-License-Identifier: Apache-2.0
"""The real machine behind the seam: the only class that changes one, and it refuses to anybody but PID 1.

What it refuses is what cannot be taken back or reaches beyond a directory: mounts, modules, names, power.
"""

from __future__ import annotations

import os
import stat
import time
from _queue import Empty, SimpleQueue

from guest_cdi.lean.light import TYPE_CHECKING, Iterator, TypeVar
from nvrc.machine import linux
from nvrc.machine.children import Children, Ended, nobody, work
from nvrc.machine.kmsg import records
from nvrc.machine.program import Program, start, start_piped
from nvrc.machine.system import KERN_EMERG, Echo, Node, Output, Task
from nvrc.machine.waits import Waits
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import printable

if TYPE_CHECKING:
    from nvrc.machine.uevents import Events

T = TypeVar("T")

USER_FACILITY = 1 << 3


class LinuxSystem:
    """The real machine below `root`. Seconds are those of the kernel's boot clock, as in its own messages."""

    def __init__(self, root: str = "/", console: int = 2) -> None:
        self._root = root.rstrip("/")
        self._children, self.waits = Children(), Waits()
        self.output: Output = lambda descriptor, _name: os.close(descriptor)
        self.echo: Echo | None = None
        self._console = console
        self._is_kmsg_open = False

    def real_path(self, path: str) -> str:
        return self._root + path

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        descriptor = os.open(self.real_path(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces = []
            while limit > 0 and (piece := os.read(descriptor, min(limit, 1 << 16))):
                pieces.append(piece)
                limit -= len(piece)
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def write(self, path: str, data: bytes) -> None:
        """Write a file in place with one write(2), as kernel files want it."""
        self._write(path, data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def publish(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file so that a reader sees the old one or the new one, never a part."""
        temporary = f"{path}.new"
        try:
            self._write(temporary, data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            os.rename(self.real_path(temporary), self.real_path(path))
        except OSError:
            try:
                os.unlink(self.real_path(temporary))
            except FileNotFoundError:
                pass
            raise

    def _write(self, path: str, data: bytes, flags: int, mode: int) -> None:
        descriptor = os.open(self.real_path(path), flags | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view):]
        finally:
            os.close(descriptor)

    def list_dir(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(os.listdir(self.real_path(path))))

    def exists(self, path: str, *, executable: bool = False) -> bool:
        try:
            mode = os.stat(self.real_path(path)).st_mode
        except OSError:
            return False
        return not executable or (stat.S_ISREG(mode) and bool(mode & 0o111))

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        os.makedirs(self.real_path(path), mode, exist_ok=True)

    def make_link(self, path: str, target: str) -> None:
        """A symbolic link, in place of whatever file or link had the name."""
        real = self.real_path(path)
        if os.path.lexists(real):
            os.unlink(real)
        os.symlink(target, real)

    def append(self, path: str, data: bytes, limit: int) -> None:
        """Add to a file that is put aside as `.old` and begun anew once it holds `limit` bytes."""
        real = self.real_path(path)
        descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(data) > limit:
                os.rename(real, f"{real}.old")
                os.close(descriptor)
                descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(descriptor, data[-limit:])
        finally:
            os.close(descriptor)

    def open_reader(self, path: str) -> int:
        """A descriptor for the event loop that gives what is added from now on."""
        descriptor = os.open(self.real_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(descriptor, 0, os.SEEK_END)
        return descriptor

    def bind_log(self, path: str) -> int:
        """A datagram socket at `path` that anybody may write to and that tells the sender's uid."""
        from nvrc.machine.journal import bind

        return bind(self.real_path(path))

    def close_to_others(self, path: str) -> None:
        os.chmod(self.real_path(path), 0o600)

    def listen_control(self, path: str) -> int:
        """A stream socket at `path` that root alone may connect to."""
        from nvrc.machine.control import listen

        return listen(self.real_path(path))

    def listen_vsock(self, port: int) -> int:
        """A stream socket on a port of the VM's own, for the host; OSError where there is no such device."""
        self._only_as_init("listen on vsock")
        from nvrc.machine.vsock import listen

        return listen(self.real_path(paths.VSOCK), port)

    def open_root(self, pid: int) -> int:
        return os.open(self.real_path(f"/proc/{pid}/root"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def kernel_records(self) -> Iterator[bytes]:
        """What the kernel's ring buffer holds now, oldest first, in the format of /dev/kmsg."""
        return records(self.real_path(paths.KMSG))

    def find_node(self, path: str) -> Node | None:
        """What is at the path itself, links not followed; None for nothing."""
        try:
            found = os.lstat(self.real_path(path))
        except FileNotFoundError:
            return None
        return Node(found.st_mode, os.major(found.st_rdev), os.minor(found.st_rdev), found.st_uid, found.st_gid)

    def make_node(self, path: str, node: Node) -> None:
        """A device node; one with the same kind and numbers stays and gets mode and owner. Others are in the way."""
        self._only_as_init("make device nodes")
        real = self.real_path(path)
        found = self.find_node(path)
        if found is None or (stat.S_IFMT(found.mode), *found[1:3]) != (stat.S_IFMT(node.mode), *node[1:3]):
            os.mknod(real, node.mode, os.makedev(node.major, node.minor))
        os.chown(real, node.uid, node.gid, follow_symlinks=False)
        os.chmod(real, stat.S_IMODE(node.mode))

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        self._only_as_init("mount")
        linux.mount(source, self.real_path(target), fstype, flags, data)

    refused_options = staticmethod(linux.refused_options)

    def set_hostname(self, name: str) -> None:
        self._only_as_init("sethostname")
        import _socket

        _socket.sethostname(name)

    def raise_loopback(self) -> None:
        self._only_as_init("raise lo")
        linux.raise_interface("lo")

    def load_module(self, image: str | bytes, options: str, *, compressed: bool = False) -> None:
        """Insert a module from a file, which the kernel unpacks itself if `compressed`, or from memory."""
        self._only_as_init("load a module")
        if isinstance(image, bytes):
            linux.init_module(image, options)
            return
        descriptor, began_s = os.open(self.real_path(image), os.O_RDONLY | os.O_CLOEXEC), self.now()
        try:
            linux.finit_module(descriptor, options, linux.MODULE_INIT_COMPRESSED_FILE if compressed else 0)
        finally:
            self.waits.add(self.now() - began_s)
            os.close(descriptor)

    def ioctl(self, path: str, request: int, data: bytes) -> bytes:
        """One request to a device, with a structure that the kernel reads and writes back."""
        self._only_as_init("talk to a device")
        return linux.ioctl(self.real_path(path), request, data)

    def listen_uevents(self) -> Events:
        """Have events of devices wake us from now on."""
        from nvrc.machine.uevents import listen

        return listen()

    def start(self, program: Program, ended: Ended = nobody) -> int:
        root = self._root or "/"
        if program.log_as:
            pid = start_piped(program, root, lambda reading: self.output(reading, program.log_as))
        elif program.echoed and self.echo is not None:
            pid = start_piped(program, root, self.echo)
        else:
            pid = start(program, root)
        return self._children.born(pid, ended)

    def fork(self, task: Task, ended: Ended = nobody) -> tuple[int, int]:
        """A copy of this process that does one task and is gone: its pid, and a socket to talk with it."""
        from _socket import socketpair

        ours, theirs = socketpair()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - the child
            work(task, theirs.detach(), writing)
        theirs.close()
        os.close(writing)
        os.set_blocking(reading, False)
        self.output(reading, "worker")
        return self._children.born(pid, ended), ours.detach()

    def reap(self) -> list[tuple[int, int]]:
        """Every child that has ended, as (pid, wait status); whoever waits for one is told."""
        found = []
        while child := linux.wait_any():
            found.append(child)
            self._children.died(*child)
        return found

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def power_off(self) -> None:
        self._only_as_init("power off")
        linux.reboot(linux.LINUX_REBOOT_CMD_POWER_OFF)

    def restart(self) -> None:
        self._only_as_init("restart")
        linux.reboot(linux.LINUX_REBOOT_CMD_RESTART)

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wait(self, queue: SimpleQueue[T], limit_s: float) -> T | None:
        """The next thing that another thread puts into the queue; None when the time is up first."""
        began_s = self.now()
        try:
            return queue.get(timeout=max(0.0, limit_s))
        except Empty:
            return None
        finally:
            self.waits.add(self.now() - began_s)

    def say(self, line: str, level: int = KERN_EMERG) -> None:
        """One line for the console: through the kernel's ring buffer, so that no kernel message breaks into it.

        No command line silences the default level. Opened for each line: the kernel's limit counts for each opening.
        """
        kmsg, whole = self._open_kmsg(), line if line.isprintable() and line.isascii() else printable(line)
        try:
            priority = b"<%d>" % (USER_FACILITY | level) if kmsg >= 0 else b""
            os.write(kmsg if kmsg >= 0 else self._console, b"%s%s\n" % (priority, whole.encode()))
        except OSError:
            pass  # there is no place left to say that the console does not work
        if kmsg >= 0:
            os.close(kmsg)

    def _open_kmsg(self) -> int:
        """-1 before /dev is there, and where printk.devkmsg=off makes the kernel drop what programs write."""
        try:
            if not self._is_kmsg_open and self.read(paths.PRINTK_DEVKMSG, 16).startswith(b"off"):
                return -1
            self._is_kmsg_open = True
            return os.open(self.real_path(paths.KMSG), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return -1

    @staticmethod
    def _only_as_init(what: str) -> None:
        if os.getpid() != 1:
            raise PermissionError(1, f"refusing to {what}: this process is not PID 1")
