# SPDX-License-Identifier: Apache-2.0
"""Requests to the kernel itself, and its clock.

What cannot be taken back or reaches beyond a folder is refused to anybody but PID 1: mounts, modules, devices, names,
sockets to the host, power.
"""

from __future__ import annotations

import os
import stat
import time
from _queue import Empty, SimpleQueue

from guest_cdi.lean.light import Iterator, TypeVar
from nvrc.machine import linux
from nvrc.machine.files import Rooted, find_node
from nvrc.machine.kmsg import records
from nvrc.machine.system import Node, Subscription
from nvrc.machine.waits import Waits
from nvrc.vocabulary import paths

T = TypeVar("T")


class LinuxKernel(Rooted):
    """Seconds are those of the kernel's boot clock, as in its own messages."""

    def __init__(self, root: str = "/") -> None:
        super().__init__(root)
        self.waits = Waits()

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

    def drop_audit_messages(self) -> None:
        self._only_as_init("add a rule to audit")
        from nvrc.machine.audit import drop_messages

        drop_messages()

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

    def make_node(self, path: str, node: Node) -> None:
        """A device node; one with the same kind and numbers stays and gets mode and owner. Others are in the way."""
        self._only_as_init("make device nodes")
        real = self.real_path(path)
        found = find_node(real)
        if found is None or (stat.S_IFMT(found.mode), *found[1:3]) != (stat.S_IFMT(node.mode), *node[1:3]):
            os.mknod(real, node.mode, os.makedev(node.major, node.minor))
        os.chown(real, node.uid, node.gid, follow_symlinks=False)
        os.chmod(real, stat.S_IMODE(node.mode))

    def shut_devices(self, cgroups: str, majors: tuple[int, ...]) -> int:
        """Character devices of these numbers open for nobody but members of the root cgroup, whatever their rights."""
        self._only_as_init("shut devices")
        from nvrc.machine.gate import shut

        return shut(self.real_path(cgroups), majors)

    def open_devices(self, cgroups: str, gate: int) -> None:
        self._only_as_init("open devices")
        from nvrc.machine.gate import lift

        lift(self.real_path(cgroups), gate)

    def ioctl(self, path: str, request: int, data: bytes) -> bytes:
        """One request to a device, with a structure that the kernel reads and writes back."""
        self._only_as_init("talk to a device")
        return linux.ioctl(self.real_path(path), request, data)

    def listen_vsock(self, port: int) -> int:
        """A stream socket on a port of the VM's own, for the host; OSError where there is no such device."""
        self._only_as_init("listen on vsock")
        from nvrc.machine.vsock import listen

        return listen(self.real_path(paths.VSOCK), port)

    def listen_tcp(self, port: int) -> int:
        """A stream socket on a port of all of the guest's addresses."""
        self._only_as_init("listen on TCP")
        from nvrc.machine.inet import listen

        return listen(port)

    def listen_uevents(self) -> Subscription:
        """Have events of devices wake us from now on."""
        from nvrc.machine.uevents import listen

        return listen()

    def kernel_records(self) -> Iterator[bytes]:
        """What the kernel's ring buffer holds now, oldest first, in the format of /dev/kmsg."""
        return records(self.real_path(paths.KMSG))

    forbid_tracing = staticmethod(linux.forbid_dumps)

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
        self.waits.begin()
        try:
            return queue.get(timeout=max(0.0, limit_s))
        except Empty:
            return None
        finally:
            self.waits.add(self.now() - began_s)

    @staticmethod
    def _only_as_init(what: str) -> None:
        if os.getpid() != 1:
            raise PermissionError(1, f"refusing to {what}: this process is not PID 1")
