# SPDX-License-Identifier: Apache-2.0
"""One at a time makes a thing; whoever waits for it is told who has it, and what that one is doing.

The lock is the kernel's (flock) and goes with the process. What stands in the file is for people: pid, command, and
what is made. A file may be removed by its holder, so whoever got the lock looks whether it is the file of that name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nvrc_build.ground.errors import BuildError

LOOK_S, TELL_S = 0.1, 60.0
_COMMAND_CHARS = 100
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What a waiting one does: `tell` gets a line at once and then one a minute; the time is up after `limit_s`."""

    tell: Callable[[str], None]
    limit_s: float | None = None


def tell_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def hold(lock: Path, patience: Patience, *, what: str, is_kept: bool = True) -> Iterator[None]:
    """Hold a lock file for as long as the context lasts. `is_kept`: the file stays, for a name that many have."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _take(lock, patience, what) as handle:
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n{what}\n{_own_command()}\n")
        handle.flush()
        try:
            yield
        finally:
            if is_kept:
                handle.truncate(0)
            else:
                lock.unlink(missing_ok=True)


def is_free(lock: Path) -> bool:
    """Whether nobody holds it now."""
    try:
        with _open(lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _take(lock: Path, patience: Patience, what: str) -> TextIO:
    started_s, told_s = time.monotonic(), -TELL_S
    while True:
        handle = _open(lock, os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
        else:
            if _is_same(handle, lock):
                return handle
            handle.close()
            continue  # its holder removed it meanwhile
        waited_s = time.monotonic() - started_s
        if patience.limit_s is not None and waited_s >= patience.limit_s:
            raise BuildError(f"{what} is being made by {describe(lock)}, and was not free within "
                             f"{patience.limit_s:g} s", "wait until that is over, or allow more time")
        if waited_s - told_s >= TELL_S:
            so_far = f", {waited_s:.0f} s so far" if told_s >= 0 else ""
            patience.tell(f"waiting for {what}: {describe(lock)} makes it{so_far}")
            told_s = waited_s
        time.sleep(LOOK_S)


def _open(lock: Path, more: int = 0) -> TextIO:
    """What is written there may not go where a link leads, and a pipe is not waited for."""
    try:
        number = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | more, 0o644)
    except OSError as wrong:
        if wrong.errno not in _NO_FILE:
            raise
        raise _odd(lock) from wrong
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _odd(lock)
    return open(number, "r+", encoding="utf-8")


def _odd(lock: Path) -> BuildError:
    return BuildError(f"lock {lock} is not a file", "find out who changes the cache, and delete it")


def _is_same(handle: TextIO, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), lock.stat())
    except FileNotFoundError:
        return False


def describe(lock: Path) -> str:
    """The holder: its command, pid, and the latest thing that it has begun to make."""
    pid, _, command = _read(lock)
    if not pid:
        return "another build"
    begun = [(_age(path), what) for path in lock.parent.iterdir() if path.is_file()
             for owner, what, _ in [_read(path)] if owner == pid]
    stage = max(begun)[1] if begun else ""
    return f"{command or 'another build'} (pid {pid}{f', at {stage}' if stage else ''})"


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _read(lock: Path) -> tuple[str, str, str]:
    try:
        pid, what, command = (*lock.read_text(encoding="utf-8").splitlines(), "", "", "")[:3]
    except OSError:
        return "", "", ""
    return pid, what, command


def _own_command() -> str:
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return " ".join((name, *sys.argv[1:])).replace("\n", " ")[:_COMMAND_CHARS]
