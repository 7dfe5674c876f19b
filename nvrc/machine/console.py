# SPDX-License-Identifier: Apache-2.0
"""Lines for the console, through the kernel's ring buffer, so that no kernel message breaks into one."""

from __future__ import annotations

import os

from nvrc.machine.files import Rooted, read
from nvrc.machine.system import KERN_EMERG
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import printable

USER_FACILITY = 1 << 3


class LinuxConsole(Rooted):
    """`console`: the descriptor for lines that the ring buffer does not take."""

    def __init__(self, root: str = "/", console: int = 2) -> None:
        super().__init__(root)
        self._console = console
        self._is_kmsg_open = False

    def say(self, line: str, level: int = KERN_EMERG) -> None:
        """No command line silences the default level. Opened for each line: the kernel's limit counts openings."""
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
            if not self._is_kmsg_open and read(self.real_path(paths.PRINTK_DEVKMSG), 16).startswith(b"off"):
                return -1
            self._is_kmsg_open = True
            return os.open(self.real_path(paths.KMSG), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return -1
