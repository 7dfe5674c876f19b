# SPDX-License-Identifier: Apache-2.0
"""The inside of a test about pids that come round: PID 1 of namespaces, which starts a daemon and then another program.

Run as a program (`python pids_cell.py ROOT WAY`) below `unshare`. Prints what became of the other program.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from guest_cdi.lean.linux import make_private
from namespace.privileges_cell import furnish
from nvrc.confidential.verifier import ask_verifier
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.privileges import FABRIC_MANAGER, PERSISTENCED, SUBNET_MANAGER, as_root, prepare
from nvrc.machine.program import Program
from nvrc.machine.rights import Privileges
from nvrc.vocabulary.errors import NvrcError


def main(root: str, way: str) -> None:
    make_private("/")
    furnish(root)
    system = LinuxSystem(root)
    heard: list[int] = []
    system.output = lambda descriptor, _name: heard.append(descriptor)
    threading.Thread(target=reap, args=(system,), daemon=True).start()
    row, then = WAYS[way]
    prepare(system, row, "E_INTERNAL")
    system.start(Program(path="/bin/pids", args=(way,), log_as="x", privileges=row))
    os.set_blocking(heard[0], True)
    wanted = int(os.read(heard[0], 100))
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1), encoding="ascii")
    then(system)


def verify(system: LinuxSystem) -> None:
    """With a program that refuses everything."""
    try:
        ask_verifier(system, "/bin/false", nonce=b"", evidence=b"", token=b"", uuids=(), until_s=system.now() + 60)
        tell("accepted")
    except NvrcError as err:
        tell(err.code)


def rest(system: LinuxSystem) -> None:
    """A program of root that has nothing to do with the daemon, for three seconds."""
    ended, ends = threading.Event(), []

    def told(_pid: int, status: int) -> None:
        ends.append(status)
        ended.set()

    system.start(Program(path="/bin/rest", privileges=None), told)
    ended.wait(60)
    tell(f"status {ends}")


WAYS: dict[str, tuple[Privileges, Callable[[LinuxSystem], None]]] = {
    "verifier": (PERSISTENCED, verify),
    "nv-fabricmanager": (FABRIC_MANAGER, rest),
    "nvlsm": (SUBNET_MANAGER, rest),
    "nvidia-persistenced as root": (as_root(PERSISTENCED), rest),
}


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def reap(system: LinuxSystem) -> None:
    while True:
        system.reap()
        time.sleep(0.005)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
