# SPDX-License-Identifier: Apache-2.0
"""The inside of a test of ldconfig: PID 1 of namespaces, which makes an extension part of a root that the test gives.

Run as a program (`python ldconfig_cell.py ROOT`) below `unshare`. Prints how it went, and what is there afterwards.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from guest_cdi.lean.linux import make_private
from namespace.privileges_cell import furnish
from nvrc.extensions.gpu import CACHE, join
from nvrc.machine.linux import MS_BIND
from nvrc.machine.linux_system import LinuxSystem
from nvrc.vocabulary.errors import NvrcError

EXTENSION = "/run/kata-extensions/gpu"


class RootedSystem(LinuxSystem):
    """Whose binds are of its root as well."""

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        super().mount(self.real_path(source) if flags & MS_BIND else source, target, fstype, flags, data)


def main(root: str) -> None:
    make_private("/")
    furnish(root)
    os.makedirs(f"{root}{EXTENSION}/usr/lib/x86_64-linux-gnu")
    os.makedirs(f"{root}/run/nvrc", 0o700, exist_ok=True)
    system = RootedSystem(root)
    system.output = lambda descriptor, _name: None  # which keeps it open
    reaper = threading.Thread(target=reap, args=(system,), daemon=True)
    reaper.start()
    try:
        join(system, EXTENSION, 20)
        tell("joined")
    except NvrcError as err:
        tell(f"refused {err.what}")
    if os.path.lexists(f"{root}{CACHE}"):
        tell(f"cache {Path(f'{root}{CACHE}').read_text(encoding='ascii')}")
    for place, folders, files in os.walk(f"{root}/run"):
        for name in (*folders, *files):
            if os.path.islink(f"{place}/{name}") and name != "ld.so.cache":  # that one is in its own folder
                tell(f"link {place}/{name}")
    names = [Path(f"/proc/{name}/comm").read_text(encoding="ascii").strip() for name in os.listdir("/proc") if name.isdigit()]
    tell(f"processes {names.count('ldconfig')}")


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def reap(system: LinuxSystem) -> None:
    while True:
        system.reap()
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)
