# SPDX-License-Identifier: Apache-2.0
"""A loop of a user whose programs have used up what the kernel lets that user watch (fs.epoll.max_user_watches)."""

from __future__ import annotations

import errno
import os

from nvrc.machine.loop import Loop


class FullLoop(Loop):
    is_full = False

    def _register(self, descriptor: int, events: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super()._register(descriptor, events)
