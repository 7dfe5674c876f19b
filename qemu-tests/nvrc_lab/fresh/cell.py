# SPDX-License-Identifier: Apache-2.0
"""Run one command in mount, PID and IPC namespaces of its own, in another root if one is given. Needs root.

Every mount lives in the mount namespace and every process in the PID namespace, and both end with their PID 1; that is
killed by the kernel when its parent dies, however it dies. So nothing can stay behind, whatever happens. Devices,
/sys and the network are the machine's. Started as a script of its own (`python cell.py JSON`), because unshare(2) must
happen in a process with one thread. pivot_root(2), pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn, TypedDict

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH, PR_SET_PDEATHSIG = 2, 1
# What cannot be entered, told from what a command says itself: 126 and 127 are env(1)'s and every shell's.
CANNOT_RUN, NOT_FOUND = 126, 127
_RELAYED = (signal.SIGTERM, signal.SIGHUP)


class Order(TypedDict):
    root: str  # "": no other root
    argv: list[str]
    cwd: str
    parent: int


def cell_argv(root: str, argv: Sequence[str], *, cwd: str) -> list[str]:
    """The command to start from the process with whose end everything has to end, in the environment for `argv`.

    That is not in here because anybody may read a command line, and it can hold the way to a package index.
    """
    order: Order = {"root": root, "argv": list(argv), "cwd": cwd, "parent": os.getpid()}
    return [sys.executable, "-I", "-S", __file__, json.dumps(order, sort_keys=True)]


class _Libc:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _check(self, result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")

    def unshare(self, flags: int) -> None:
        self._check(self._libc.unshare(flags), "unshare")

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        self._check(self._libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags),
                                     data.encode()), f"mount {source} on {target}")

    def pivot_root(self, new: str, old: str) -> None:
        self._check(self._libc.pivot_root(new.encode(), old.encode()), "pivot_root")

    def detach(self, target: str) -> None:
        self._check(self._libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")

    def die_with_parent(self) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run_order(order: Order) -> int:
    libc = _Libc()
    libc.die_with_parent()
    if os.getppid() != order["parent"]:
        return CANNOT_RUN  # it died before this process asked to be told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command as well, which decides
    libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC)
    child = os.fork()
    if child == 0:
        _guarded(lambda: _be_first(libc, order))
    return _wait_for(child)


def _be_first(libc: _Libc, order: Order) -> int:
    """PID 1 of the namespace: what it leaves running when it ends is killed by the kernel."""
    libc.die_with_parent()
    libc.mount("none", "/", "", MS_REC | MS_PRIVATE)
    if order["root"]:
        _enter(libc, order["root"])
    else:
        libc.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    child = os.fork()
    if child == 0:
        _guarded(lambda: _become(order))
    return _wait_for(child)


def _enter(libc: _Libc, root: str) -> None:
    libc.mount(root, root, "", MS_BIND)
    for name in ("dev", "sys"):
        libc.mount(f"/{name}", f"{root}/{name}", "", MS_BIND | MS_REC)
    if os.path.isdir(f"{root}/dev/shm"):
        libc.mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    libc.mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    libc.mount("tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.chdir(root)
    libc.pivot_root(".", ".")  # the old root is now on top of the new one, and "." is the old one
    libc.detach(".")
    os.chdir("/")


def _become(order: Order) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.chdir(order["cwd"])
    name = order["argv"][0]
    # Not os.execvpe, which imports a module on its way: in another root there may be none of this Python.
    for folder in [""] if "/" in name else [f"{folder}/" for folder in os.environ.get("PATH", "").split(":")]:
        try:
            os.execve(f"{folder}{name}", order["argv"], os.environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as failed:
            print(f"fresh: cannot run {name!r}: {failed.strerror}", file=sys.stderr)
            return CANNOT_RUN
    print(f"fresh: there is no command {name!r}", file=sys.stderr)
    return NOT_FOUND


def _guarded(action: Callable[[], int]) -> NoReturn:
    """A forked child ends here, whatever it meets; its stack is never its parent's."""
    status = CANNOT_RUN
    try:
        status = action()
    except OSError as failed:
        _complain(failed)
    except Exception as failed:  # where a traceback would need files of the root that was left
        print(f"fresh: cannot enter: {failed!r}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _complain(failed: OSError) -> None:
    print(f"fresh: {failed.strerror or failed}; namespaces and mounts need root, and a machine or container that "
          "allows them (CAP_SYS_ADMIN)", file=sys.stderr)


def _wait_for(child: int) -> int:
    """The child's status as a shell tells it. Orphans are reaped; a request to end is passed on to the child."""
    def relay(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _RELAYED:
        signal.signal(number, relay)
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    try:
        sys.exit(run_order(json.loads(sys.argv[1])))
    except OSError as error:
        _complain(error)
        sys.exit(CANNOT_RUN)
