# SPDX-License-Identifier: Apache-2.0
"""Puts a row of privileges in force in a child of PID 1, between fork and exec, or before a worker begins its work.

Imported by PID 1 before it forks: in the child nothing is imported. All is done with PID 1's own rights, which are gone
afterwards. Follows mount_namespaces(7), proc(5), capabilities(7), prctl(2).
"""

from __future__ import annotations

import os
import resource
import stat
import struct
from errno import ENOSYS

from guest_cdi.lean import libc, linux
from guest_cdi.lean.light import Callable, Iterator
from nvrc.machine.filters import FILTERS, OWN_PID
from nvrc.machine.rights import MIB, Privileges, View
from nvrc.vocabulary import paths

# capabilities(7)
CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_IPC_LOCK": 14, "CAP_SYS_PTRACE": 19,
                "CAP_SYS_ADMIN": 21}
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_SET_KEEPCAPS = 47, 2, 8
_NAMESPACES = libc.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_STRICT = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
_LOCKED = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID
BASE_DEVICES = ("null", "zero", "full", "random", "urandom")
# Of /proc: what acts on the machine is read-only, what shows the kernel's memory is covered.
READ_ONLY_OF_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "mtrr", "acpi", "scsi", "asound", "dynamic_debug")
COVERED_OF_PROC = ("kcore", "kmsg", "keys", "timer_list", "kpageflags", "kpagecount", "kpagecgroup")
LOG = "log"


Devices = tuple[tuple[str, os.stat_result], ...]


def plan(privileges: Privileges, root: str) -> Callable[[], None]:
    """What puts these privileges in force in a child below `root`. All that can be found out before is found out here,
    where the interpreter's pages are warm: in a child each is a fault of its own.
    """
    view, calls = privileges.view, find_filter(os.uname().machine, privileges.calls.name)
    devices = tuple(_find_devices(f"{root.rstrip('/')}/dev", view.devices)) if view else ()
    return lambda: _confine(privileges, devices, calls)


def _confine(privileges: Privileges, devices: Devices, calls: bytes) -> None:
    """This process has these privileges from here on, and can gain no others."""
    os.setsid()  # a signal to its process group must not reach the agent
    if privileges.view is not None:
        _enter(privileges.view, devices)
    _limit(privileges)
    _change_account(privileges)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.filter_system_calls(name_itself(calls, os.getpid()))


def _limit(privileges: Privileges) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (privileges.data_mib * MIB, privileges.data_mib * MIB))
    _lower(resource.RLIMIT_NOFILE, privileges.open_files)
    if privileges.processes is not None:
        _lower(resource.RLIMIT_NPROC, privileges.processes)
    if privileges.small_pages:
        try:
            linux.prctl(linux.PR_SET_THP_DISABLE, 1)
        except OSError:
            pass  # a kernel that has none


def _lower(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _change_account(privileges: Privileges) -> None:
    kept = tuple(CAPABILITIES[name] for name in privileges.capabilities)
    uid, gid = privileges.account
    os.setgroups((paths.DEV_LOG_GROUP,))
    os.setresgid(gid, gid, gid)
    if uid == 0:
        linux.limit_capabilities(kept)
        return
    linux.prctl(_PR_SET_KEEPCAPS, 1)
    linux.drop_bounding(kept)
    os.setresuid(uid, uid, uid)
    linux.set_capabilities(kept, inheritable=kept)
    for number in kept:  # what exec would take from anybody but root
        linux.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def _enter(view: View, devices: Devices) -> None:
    linux.unshare(_NAMESPACES)
    linux.make_private("/")
    own = [(folder.path, mount) for folder in view.own for _place, mount in _copies((folder.place,))]
    shown = _copies(view.shown)
    of_dev = _copies((f"/dev/{LOG}", *(f"/dev/{name}" for name, found in devices if stat.S_ISDIR(found.st_mode))))
    # A new one shows no processes but those that this one may look into.
    proc = linux.new_filesystem("proc", _STRICT, hidepid="0" if view.all_processes else "2")
    linux.set_tree_attributes("/", _LOCKED)
    _attach(proc, "/proc")
    _narrow_proc()
    _cover("/run", "mode=1777,size=64m")
    _cover("/dev", "mode=755,size=64m", nodev=False)
    for _path, mount in shown:
        linux.set_mount_attributes(mount, _LOCKED | linux.MOUNT_ATTR_NODEV)
    for _path, mount in of_dev:  # the kernel's own: a row's root could put a link in a node's place
        linux.set_mount_attributes(mount, _LOCKED)
    _fill_dev(devices)
    for path, mount in (*own, *shown, *of_dev):
        _put(mount, path)
    for path in view.scratch:
        if os.path.isdir(path) and not os.path.islink(path):  # in our images /var/log leads to /run, which it has
            _cover(path, "mode=1777,size=64m")


def _copies(places: tuple[str, ...]) -> list[tuple[str, int]]:
    """Detached copies of what is there at these paths, with what is mounted below."""
    return [(path, linux.clone_tree(linux.AT_FDCWD, path, linux.AT_RECURSIVE)) for path in places
            if os.path.exists(path)]


def _attach(mount: int, path: str) -> None:
    linux.place_mount(mount, path)
    os.close(mount)


def _put(mount: int, path: str) -> None:
    """At a place that is made for it, of its own kind. All that is on the way was made here."""
    if path != "/run":
        try:
            _make_place(path, mount)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path))
            _make_place(path, mount)
    _attach(mount, path)


def _make_place(path: str, mount: int) -> None:
    if stat.S_ISDIR(os.fstat(mount).st_mode):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _cover(path: str, options: str, *, nodev: bool = True) -> None:
    linux.mount_filesystem("tmpfs", path, linux.MS_NOSUID | linux.MS_NOEXEC | (linux.MS_NODEV if nodev else 0), options)


def _narrow_proc() -> None:
    for name in READ_ONLY_OF_PROC:
        path = f"/proc/{name}"
        try:
            linux.bind(path, path)
        except FileNotFoundError:
            continue
        linux.remount_bind(path, linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    for name in COVERED_OF_PROC:
        try:
            linux.bind("/proc/version", f"/proc/{name}")
        except FileNotFoundError:
            continue


def _find_devices(folder: str, prefixes: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in BASE_DEVICES or (prefixes and entry.name.startswith(prefixes)):
                yield entry.name, entry.stat(follow_symlinks=False)


def _fill_dev(devices: Devices) -> None:
    """Nodes are made anew. Folders are those of devtmpfs: in those of MIG more appear later."""
    mask = os.umask(0)
    for name, found in devices:
        if stat.S_ISCHR(found.st_mode):
            os.mknod(f"/dev/{name}", found.st_mode, found.st_rdev)
            if found.st_uid or found.st_gid:
                os.chown(f"/dev/{name}", found.st_uid, found.st_gid, follow_symlinks=False)
    os.mkdir("/dev/shm", 0o1777)  # noqa: S108 - an empty one, of the program's own
    os.umask(mask)


def find_filter(machine: str, calls: str) -> bytes:
    """The filter's program for a machine of this name; OSError for one whose calls are not listed."""
    program = FILTERS.get((machine, calls))
    if program is None:
        raise OSError(ENOSYS, f"the system calls of {machine} are not listed here, so no program can be confined")
    return bytes.fromhex(program)


def name_itself(program: bytes, own_pid: int) -> bytes:
    """With the pid of the process that it is for, where the list lets it send signals to itself only."""
    return program.replace(struct.pack("<I", OWN_PID), struct.pack("<I", own_pid))
