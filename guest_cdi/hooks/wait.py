# SPDX-License-Identifier: Apache-2.0
"""wait-ready: hold the container back until the init of this machine says that its GPUs are up.

The word is a file of this machine, never one of the container: its path comes from the document, and it counts only as
a plain file that belongs to the hook's own user, root, and that nobody else may write. It is put there whole, by
rename. inotify(7) tells of it, so that the wait costs nothing and ends at once.
"""

from __future__ import annotations

import os
import select
import stat
import time

from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.root import Root
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.libc import SYS_INOTIFY_ADD_WATCH, SYS_INOTIFY_INIT1, syscall
from guest_cdi.lean.light import Callable, partial
from guest_cdi.lean.waiting import WORD

IN_CLOSE_WRITE, IN_MOVED_TO = 0x08, 0x80
LONGEST_S = 86400
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_EVENTS = 4096


def prepare(values: Values) -> Action:
    path, seconds = ("".join(values.get(name, ())) for name in ("file", "seconds"))
    if not path.startswith("/"):
        raise CdiError("E_CDI_USAGE", f"wait-ready: --file {path!r} is not an absolute path")
    if not (seconds.isascii() and seconds.isdigit() and 0 < int(seconds) <= LONGEST_S):
        raise CdiError("E_CDI_USAGE", f"wait-ready: --seconds {seconds!r} is not a number from 1 to {LONGEST_S}")
    return partial(await_word, path, int(seconds))


def await_word(path: str, limit_s: int, _root: Root, now: Callable[[], float] = time.monotonic) -> list[str]:
    """Nothing of the container is looked at."""
    began_s = now()
    events = syscall("inotify", SYS_INOTIFY_INIT1, os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        folder = os.path.dirname(path)
        syscall(folder, SYS_INOTIFY_ADD_WATCH, events, os.fsencode(folder), IN_CLOSE_WRITE | IN_MOVED_TO)
        waiting = select.poll()
        waiting.register(events, select.POLLIN)
        while not is_said(path):  # asked after the watch is set: what comes in between is not missed
            left_s = began_s + limit_s - now()
            if left_s <= 0 or not waiting.poll(left_s * 1000):
                raise CdiError("E_CDI_NOT_READY", f"the GPUs of this machine were not up within {limit_s} s")
            os.read(events, _EVENTS)
    finally:
        os.close(events)
    return [f"waited {now() - began_s:.1f} s for the GPUs"]


def is_said(path: str) -> bool:
    """Whether the word stands there. A link, or a file that others could have written, is an error, not a word."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & OTHERS_WRITE:
            raise CdiError("E_CDI_HOOK", f"{path} is not a plain file that only this user may write")
        return os.read(descriptor, len(WORD) + 1) == WORD
    finally:
        os.close(descriptor)
