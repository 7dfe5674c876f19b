# SPDX-License-Identifier: Apache-2.0
"""A loop of a user whose programs have used up what the kernel lets that user watch (fs.epoll.max_user_watches)."""

from __future__ import annotations

import errno
import os

from nvrc.machine.loop import Callback, Loop


class FullLoop(Loop):
    is_full = False

    def watch(self, descriptor: int, ready: Callback, *, writing: bool = False, urgent: bool = False) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().watch(descriptor, ready, writing=writing, urgent=urgent)
