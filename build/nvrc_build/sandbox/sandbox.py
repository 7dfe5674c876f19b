# SPDX-License-Identifier: Apache-2.0
"""Run one program inside a root folder: own mount, PID, IPC and network namespaces, root read-only, no network.

Every mount lives in a mount namespace that ends with its last process, so there is nothing to undo, also after Ctrl-C
or a crash. Without root a user namespace is added and the caller's account becomes root inside. This file is started
as a script of its own (`python sandbox.py JSON`) because unshare(2) must happen in a process with one thread.

The program is not the first process inside: the kernel keeps from that one the signals that it does not ask for, so a
program that writes too large a file would go on as if the disk were full, and some then end well.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypedDict

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1

# Mount points that a root must have before it is made read-only.
MOUNT_POINTS = ("dev", "proc", "tmp", "src", "site", "out")
_DEVICES = ("null", "zero", "full", "random", "urandom")


def sandbox_argv(root: Path, argv: Sequence[str], *, env: Mapping[str, str], cwd: str = "/",
                 read_only: Mapping[str, Path] | None = None,
                 writable: Mapping[str, Path] | None = None, largest_file: int = 0) -> list[str]:
    """The command that runs `argv` inside `root`; hand it to run.run. Keys of the binds are mount points inside.

    `largest_file`: a program that goes on writing behind so many bytes of a file is ended.
    """
    order: _Plan = {
        "root": str(root), "argv": list(argv), "env": dict(env), "cwd": cwd,
        "read_only": {point: str(path) for point, path in (read_only or {}).items()},
        "writable": {point: str(path) for point, path in (writable or {}).items()},
        "largest_file": largest_file,
    }
    return [sys.executable, "-I", "-S", __file__, json.dumps(order, sort_keys=True)]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class _Plan(TypedDict):
    root: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    read_only: dict[str, str]
    writable: dict[str, str]
    largest_file: int


class _Libc:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        _check(self._libc.unshare(flags), "unshare")

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
        _check(self._libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags),
                                data.encode()), f"mount {source} on {target}")

    def bind(self, source: str, target: str, *, read_only: bool) -> None:
        self.mount(source, target, "", MS_BIND | MS_REC)
        if read_only:
            self.mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)

    def die_with_parent(self) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _enter_namespaces(libc: _Libc) -> None:
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET
    libc.unshare(flags if uid == 0 else flags | CLONE_NEWUSER)
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")


def _mount_all(libc: _Libc, root: str, read_only: Mapping[str, str], writable: Mapping[str, str]) -> None:
    libc.mount("none", "/", "", MS_REC | MS_PRIVATE)
    libc.bind(root, root, read_only=True)
    libc.mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in _DEVICES:
        Path(f"{root}/dev/{name}").touch()
        libc.bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    libc.mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    libc.mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    for point, path in read_only.items():
        libc.bind(path, f"{root}{point}", read_only=True)
    for point, path in writable.items():
        libc.bind(path, f"{root}{point}", read_only=False)


def run_order(order: str) -> int:
    plan: _Plan = json.loads(order)
    libc = _Libc()
    libc.die_with_parent()
    _enter_namespaces(libc)
    child = os.fork()
    if child == 0:
        _go_first(libc, plan)
    return _wait(child)


def _wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _go_first(libc: _Libc, plan: _Plan) -> NoReturn:
    """The namespace ends with it. It is in the root as well: the program finds it below /proc."""
    libc.die_with_parent()
    _mount_all(libc, plan["root"], plan["read_only"], plan["writable"])
    os.chroot(plan["root"])
    os.chdir(plan["cwd"])
    child = os.fork()
    if child == 0:
        _become(plan)
    os._exit(_wait(child))


def _become(plan: _Plan) -> NoReturn:
    """Python ignores two signals, which what it executes would inherit."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if plan["largest_file"] and (most == resource.RLIM_INFINITY or most > plan["largest_file"]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan["largest_file"], most))
    os.execve(plan["argv"][0], plan["argv"], plan["env"])


if __name__ == "__main__":
    sys.exit(run_order(sys.argv[1]))
