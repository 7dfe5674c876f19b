# SPDX-License-Identifier: Apache-2.0
"""The containers' termination messages: where an ending that PID 1 decides itself can still be read afterwards.

With a shared file system the runtime puts the host's file for /dev/termination-log of each container below the agent's
root, and kubelet shows what is in it once the container has ended. A message of the container's own is never touched.
The files are the host's and the container's: a child does the work and is killed when its time is up, because a
file system in user space may never answer; links are not followed and what is no regular file is not opened.
"""

from __future__ import annotations

import os
import select
import stat

from guest_cdi.lean.light import Iterator
from guest_cdi.lean.linux import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from nvrc.machine.privileges import LAST_WORDS
from nvrc.machine.system import System
from nvrc.vocabulary.signals import signal

FOLDER = "run/kata-containers/shared/containers"
SUFFIX = "termination-log"
LIMIT_S = 3.0
MOST_NAMES, MOST_FILES = 4096, 64  # looked at, and written to
INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


def leave(system: System, agent_pid: int, text: str, limit_s: float = LIMIT_S) -> int | None:
    """Write the text into every message that is still empty: how many there were, None when it was not told in time."""
    def work(talking: int) -> None:
        os.write(talking, b"%d" % fill_all(system.open_root(agent_pid), text.encode("ascii", "replace")))

    pid, answer = system.fork(work, LAST_WORDS)
    try:
        poll = select.poll()
        poll.register(answer, select.POLLIN)
        told = os.read(answer, 16) if poll.poll(limit_s * 1000) else b""
    finally:
        os.close(answer)
    if not told:
        system.signal(pid, signal.SIGKILL)
    return int(told) if told.isdigit() else None


def fill_all(root: int, message: bytes) -> int:
    """The work of the child. `root`: the root directory of the agent."""
    folder = openat2(root, FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, resolve=INSIDE)
    return sum(_fill(folder, name, message) for name in _messages(folder))


def _messages(folder: int) -> Iterator[str]:
    found = 0
    with os.scandir(folder) as entries:
        for looked_at, entry in enumerate(entries):
            if looked_at >= MOST_NAMES or found >= MOST_FILES:
                return
            if entry.name.endswith(SUFFIX):
                found += 1
                yield entry.name


def _fill(folder: int, name: str, message: bytes) -> bool:
    """Whether the message was empty and now is ours."""
    try:
        place = openat2(folder, name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, resolve=INSIDE)
    except OSError:
        return False
    try:
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            return False
        # What was seen to be a regular file is opened, whatever has its name by now.
        file = os.open(f"/proc/self/fd/{place}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.write(file, message) == len(message)
        finally:
            os.close(file)
    except OSError:
        return False
    finally:
        os.close(place)
