# SPDX-License-Identifier: Apache-2.0
"""The inside of a privileges test: PID 1 of namespaces, which starts one attacker as each row of the table has it.

Run as a program (`python privileges_cell.py ROOT LIBRARY`) below `unshare`. Prints `row NAME` and then what the attacker
told. The root is a tree made for the test; the worker is a fork and sees this machine, with a /run of its own.
"""

from __future__ import annotations

import ctypes
import os
import select
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

from guest_cdi.lean import libc, linux
from guest_cdi.lean.linux import limit_capabilities, make_private
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.privileges import (
    DOCUMENTS,
    FABRIC_MANAGER,
    LAST_WORDS,
    METRICS,
    PERSISTENCED,
    PRIVILEGES,
    WORKER,
    as_root,
    hand_out,
    prepare,
)
from nvrc.machine.program import Program
from nvrc.machine.rights import Account, Privileges
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

NODES = (("null", 1, 3, 0o666), ("zero", 1, 5, 0o666), ("nvidia0", 1, 3, 0o666), ("urandom", 1, 9, 0o666), ("kmsg", 1, 11, 0o644),
         # Of nothing that this machine has: what is tried is whether they are there.
         *((name, 1, 3, 0o666) for name in ("mem", "port", "fuse", "vsock", "userfaultfd", "ptmx", "tty", "console", "hpet",
                                            "loop-control", "hwrng", "tpm0", "kvm", "vhost-vsock", "snapshot")))
SECRET = "/run/kata-containers/pod/rootfs/secret"


def main(root: str, library: str) -> None:
    make_private("/")
    attacker = ctypes.CDLL(library)
    furnish(root)
    system = LinuxSystem(root)
    heard: list[int] = []
    system.output = lambda descriptor, _name: heard.append(descriptor)
    system.forbid_tracing()
    prepare(system, FABRIC_MANAGER, "E_INTERNAL")
    peer = replace(FABRIC_MANAGER, account=Account(0, 64999))  # another daemon of the same user
    daemon, container = system.start(Program(path="/bin/rest", log_as="rest", privileges=peer)), start_container()
    as_roots = [replace(as_root(row), name=f"{row.name} as root") for row in (PERSISTENCED, METRICS)]
    for row in (None, *PRIVILEGES, *as_roots):
        heard.clear()
        tell(f"row {row.name if row else 'nobody'}\n")
        if row in (WORKER, LAST_WORDS, DOCUMENTS):
            fork(system, row, lambda fd: attacker.attack(fd, daemon, container))
            continue
        if row:
            prepare(system, row, "E_INTERNAL")
        began = time.monotonic()
        system.start(Program(path="/bin/attacker", args=(str(daemon), str(container)), log_as="x", privileges=row))
        tell(f"started {(time.monotonic() - began) * 1000:.2f} ms\n")
        copy(heard[0])
        follow(system, root, row)
    os.kill(container, 9)


def furnish(root: str) -> None:
    """What a guest has mounted; all of it goes with this namespace."""
    libc.syscall(root, libc.SYS_MOUNT, root.encode(), root.encode(), None, 0x1000, None)
    linux.mount_filesystem("sysfs", f"{root}/sys", 0, "")
    for place in (f"{root}/dev", f"{root}/run", "/run"):
        linux.mount_filesystem("tmpfs", place, 0, "mode=755")
    linux.mount_filesystem("proc", f"{root}/proc", 0, "")
    for name, major, minor, mode in NODES:
        os.mknod(f"{root}/dev/{name}", stat.S_IFCHR | mode, os.makedev(major, minor))
        os.chmod(f"{root}/dev/{name}", mode)
    os.mknod(f"{root}/dev/vda", stat.S_IFBLK | 0o600, os.makedev(1, 0))
    os.mkdir(f"{root}/dev/nvidia-caps")
    for place in (root, ""):
        os.makedirs(os.path.dirname(place + SECRET))
        os.makedirs(f"{place}/run/nvrc")
        os.makedirs(f"{place}/run/cdi")
        for path in (SECRET, "/run/nvrc/boot.json"):
            with open(place + path, "w", encoding="ascii") as file:
                file.write("secret")


def start_container() -> int:
    """A process as a container may have it: root without any capability, to be read by whoever may."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        linux.prctl(4, 1)
        limit_capabilities(())
        linux.prctl(4, 1)
        os.close(reader)
        os.close(writer)  # it is as it shall be
        time.sleep(600)
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    return child


def fork(system: LinuxSystem, row: Privileges, task: object) -> None:
    _, answer = system.fork(task, row)  # type: ignore[arg-type]
    copy(answer)


def follow(system: LinuxSystem, root: str, row: Privileges | None) -> None:
    """What PID 1 hands out after the attack, and where whoever mounts that for a container is led."""
    try:
        hand_out(system, row or replace(FABRIC_MANAGER, view=None), "E_INTERNAL")
    except NvrcError as err:
        tell(f"handed {err.what}\n")
    for home in (paths.PERSISTENCED_HOME, paths.FABRIC_RUN):
        found = f"{root}{home}/socket"
        if os.path.lexists(found):
            tell(f"follow {'done' if Path(os.path.realpath(found)).read_text(encoding='ascii') == 'secret' else 'refused'}\n")
            os.unlink(found)


def copy(descriptor: int) -> None:
    data = b""
    while not data.endswith(b"end\n"):
        ready, _, _ = select.select([descriptor], [], [], 20)
        piece = os.read(descriptor, 65536) if ready else b""
        if not piece:
            break
        data += piece
    tell(data.decode())


def tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
