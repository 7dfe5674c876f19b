# SPDX-License-Identifier: Apache-2.0
"""Run one static program of this machine with a container's root as its whole world.

The program becomes PID 1 of new PID, mount, network, IPC and UTS namespaces, with the container root as "/", this
machine's file systems gone, a fresh /proc, no environment, no descriptor but its standard ones, three capabilities, no
way to gain more, a list of system calls, and a bound to its memory. What it prints has names of the container's in it:
the head of that is handed back as one line of plain text, and the rest is dropped. Between the change of root and the
start of the program nothing is imported and no library is loaded: from there on, every path leads into the container.
Follows pivot_root(2), and switch_root's way for a root that is an initramfs.
"""

from __future__ import annotations

import os
import select
import sys

from guest_cdi.hooks.root import DIRECTORY, Handle, Root
from guest_cdi.hooks.syscalls import make_filter
from guest_cdi.lean import libc, linux
from guest_cdi.lean.coded import printable
from guest_cdi.lean.light import Callable, NamedTuple, NoReturn, Sequence

# Beside the PID namespace, which only a child can be in.
NAMESPACES = libc.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET
# Enough to write below directories of any owner, and nothing else. CAP_DAC_READ_SEARCH is the right of
# open_by_handle_at(2), which opens any file of a file system, also those outside the root.
KEPT_CAPABILITIES = (linux.CAP_CHOWN, linux.CAP_DAC_OVERRIDE, linux.CAP_FOWNER)
DATA_LIMIT_BYTES = 512 << 20  # for what the container's files make the program remember; libraries are mapped beside it
PROC_ATTRIBUTES = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
FAILED = 125
REPORT_LIMIT_BYTES, OUTPUT_LIMIT_BYTES = 4096, 300
OWN_PID_NAMESPACE = "/proc/self/ns/pid"
MOUNT_TABLE = "/proc/self/mountinfo"
_POINT_AT, _OPTIONAL_AT = 4, 6  # a mount point, and what may follow it up to a dash


class Place(NamedTuple):
    """Where to go: the container root, known by name and by what was found there."""

    path: str
    identity: tuple[int, int]
    is_initramfs: bool
    mount_points: tuple[str, ...]


def run(program_fd: int, argv: Sequence[str], root: Root, deadline_s: float) -> tuple[str, str]:
    """What went wrong, empty when the program ran and said 0; and what it printed."""
    table = read_mount_table()
    place = Place(root.path, root.identity(), is_initramfs(table), mount_points(table))
    calls = make_filter(os.uname().machine)
    report_read, report_write = os.pipe()
    output_read, output_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # who prints more than fits does not wait
    with Handle(report_read), Handle(output_read), Handle(os.open(os.devnull, os.O_RDWR)) as null:
        with Handle(report_write), Handle(output_write):
            standard = (null.fd, output_write, output_write)
            child = fork(lambda: _become(program_fd, argv, place, standard, calls), report_write)
        return _await(child, report_read, deadline_s), _read_output(output_read)


def fork(body: Callable[[], NoReturn], report_fd: int) -> int:
    """Run body as PID 1 of a new PID namespace. It must not come back; why it did is one line on report_fd."""
    with Handle(os.open(OWN_PID_NAMESPACE, os.O_RDONLY)) as own:
        linux.unshare(libc.CLONE_NEWPID)  # for the children of this process, of which there shall be one
        child = os.fork()
        if child:
            linux.setns(own.fd, libc.CLONE_NEWPID)
            return child
    try:
        body()
    except BaseException as err:
        os.write(report_fd, f"{type(err).__name__}: {err}".encode("utf-8", "surrogateescape")[:REPORT_LIMIT_BYTES])
    finally:
        os._exit(FAILED)


def _become(program_fd: int, argv: Sequence[str], place: Place, standard: Sequence[int], calls: bytes) -> NoReturn:
    linux.prctl(linux.PR_SET_PDEATHSIG, linux.SIGKILL)
    linux.unshare(NAMESPACES)
    forbid_imports()
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    enter(place)
    drop_privileges()
    linux.filter_system_calls(calls)  # the last thing before the program: from here on only what it needs itself
    os.execve(program_fd, list(argv), {})  # noqa: S606


def forbid_imports() -> None:
    """After the change of root, an import would load the container's file of that name."""
    sys.path.clear()
    sys.path_hooks.clear()
    sys.meta_path.clear()
    sys.path_importer_cache.clear()


def enter(place: Place) -> None:
    """Make the container root "/", with nothing of this machine left beside it."""
    linux.make_private("/")
    with Handle(os.open(place.path, DIRECTORY)) as root:
        found = os.fstat(root.fd)
        if (found.st_dev, found.st_ino) != place.identity:
            raise RuntimeError(f"{place.path} was exchanged for another directory")
        # A detached copy is a mount for certain, which a plain directory as root would not be.
        with Handle(linux.clone_tree(root.fd, flags=linux.AT_RECURSIVE)) as tree:
            if place.is_initramfs:
                _move_over(tree.fd, place.mount_points)
            else:
                linux.attach_mount(tree.fd, root.fd)
                _pivot_to(tree.fd)
    os.chdir("/")
    _mount_proc()


def _pivot_to(tree_fd: int) -> None:
    os.fchdir(tree_fd)
    linux.pivot_root(".", ".")  # the old root is now on top of the new one, and "." is the new one
    linux.detach_mount(".")


def _move_over(tree_fd: int, points: Sequence[str]) -> None:
    """An initramfs cannot be pivoted away from: detach all else, cover it, and lose the right to chroot back."""
    for point in reversed(points):
        if point != "/":
            try:
                linux.detach_mount(point)
            except OSError:  # went with the mount above it
                continue
    with Handle(os.open("/", DIRECTORY)) as old:
        linux.attach_mount(tree_fd, old.fd)
    os.fchdir(tree_fd)
    os.chroot(".")


def _mount_proc() -> None:
    """A /proc of the new PID namespace over the container's; a container without one needs none."""
    with Handle(os.open("/", DIRECTORY)) as root:
        try:
            place = Handle(linux.openat2(root.fd, "proc", DIRECTORY, resolve=linux.RESOLVE_NO_SYMLINKS))
        except FileNotFoundError:
            return
        with place, Handle(linux.new_filesystem("proc", PROC_ATTRIBUTES)) as proc:
            linux.attach_mount(proc.fd, place.fd)


def drop_privileges() -> None:
    linux.limit_capabilities(KEPT_CAPABILITIES)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.limit_resource(linux.RLIMIT_DATA, DATA_LIMIT_BYTES)
    linux.limit_resource(linux.RLIMIT_CORE, 0)
    linux.close_on_exec_from(3)


def _await(child: int, report_fd: int, deadline_s: float) -> str:
    with Handle(os.pidfd_open(child)) as process:
        with select.epoll() as events:
            events.register(process.fd, select.EPOLLIN)
            in_time = bool(events.poll(deadline_s))
        if not in_time:
            os.kill(child, linux.SIGKILL)  # PID 1: its namespaces go with it
    _, status = os.waitpid(child, 0)
    if not in_time:
        return f"no end after {deadline_s:g} s, killed"
    report = os.read(report_fd, REPORT_LIMIT_BYTES).decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    return report or (f"exit status {code}" if code else "")


def _read_output(output_fd: int) -> str:
    try:
        head = os.read(output_fd, OUTPUT_LIMIT_BYTES)
    except BlockingIOError:
        return ""
    return printable(" ".join(head.decode("utf-8", "replace").splitlines()))


def read_mount_table() -> str:
    with open(MOUNT_TABLE, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def is_initramfs(table: str) -> bool:
    """Whether "/" is the kernel's first root, which cannot be pivoted away from."""
    kinds = [row[row.index("-", _OPTIONAL_AT) + 1] for row in _rows(table) if row[_POINT_AT] == "/"]
    return kinds[-1:] == ["rootfs"]


def mount_points(table: str) -> tuple[str, ...]:
    """Every mount point, in the order in which they were mounted."""
    return tuple(_unescape(row[_POINT_AT]) for row in _rows(table))


def _rows(table: str) -> list[list[str]]:
    """Fields of each line. Of white space the kernel escapes in names what parts fields and lines, and nothing else."""
    return [line.split(" ") for line in table.split("\n") if line]


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
