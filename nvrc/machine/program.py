# SPDX-License-Identifier: Apache-2.0
"""How a program is started: a frozen description, and the child's side of it between clone and exec.

Limits, OOM score, namespaces and descriptors are set in the child, never in PID 1, so nothing leaks into the
init or into other children. The child reports a failed exec through a pipe that a successful exec closes.
"""

from __future__ import annotations

import _thread
import os
import resource
import struct

from guest_cdi.lean import libc
from guest_cdi.lean.light import TYPE_CHECKING, Callable, dataclass
from nvrc.machine import linux
from nvrc.vocabulary import paths
from nvrc.vocabulary.signals import signal

if TYPE_CHECKING:
    from nvrc.machine.rights import Privileges

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Named = tuple[str, int, int, int]  # a device node: its name, mode, major and minor
_FAILURE = struct.Struct("<i")
Confine = Callable[[], None]
REPORT = 3  # the descriptor of the report pipe in the child; exec closes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program with everything its process starts with. Paths are those of the guest.

    `log_as` names it in the journal: its output goes there and its input is empty, or the descriptor `input`, such as a
    socket that listens already. Without, it has the console; with `echoed` its output goes there by way of PID 1, which
    reads along. `privileges`: what it may do; None for all that
    PID 1 may. `infiniband`: what /dev/infiniband holds for it, in a mount namespace of its own; None leaves it alone.
    """

    path: str
    privileges: Privileges | None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = (("PATH", PATH),)
    own_pid_namespace: bool = False
    open_files: int | None = None
    oom_score_adj: int | None = None
    log_as: str = ""
    input: int = -1
    echoed: bool = False
    infiniband: tuple[Named, ...] | None = None


def start(program: Program, root: str = "/", output: int = -1) -> int:
    """Start it and return its pid once exec has succeeded; OSError from the child otherwise.

    `output` is the descriptor that standard output and error go to, if not to those of PID 1.
    """
    report, failed = os.pipe2(os.O_CLOEXEC)
    flags = libc.CLONE_NEWPID | libc.CLONE_NEWNS if program.own_pid_namespace else 0
    confine = load_confinement(program.privileges, root)
    # Steps on threads of their own start daemons. Only os.fork makes the interpreter usable in a child that was begun
    # beside other threads (its lock, and who the main thread is); but it makes no namespaces, as the agent needs.
    if flags:
        _outlive_threads()
    pid = linux.clone3(flags) if flags else os.fork()
    if pid == 0:
        _become(program, root, failed, output, confine)
    os.close(failed)
    with os.fdopen(report, "rb") as pipe:
        message = pipe.read()
    if message:
        _reap(pid)
        (number,) = _FAILURE.unpack_from(message)
        text = message[_FAILURE.size:].decode(errors="replace")
        raise OSError(number, os.strerror(number) if number else text, program.path)
    return pid


def load_confinement(privileges: Privileges | None, root: str = "/") -> Confine:
    """What a child has to call last. Loaded here: a child may import nothing, another thread may have held the lock.

    Only PID 1 confines: anybody else who starts a program of the table does so for a test, and has no rights to take.
    """
    if privileges is None or os.getpid() != 1:
        return _keep_everything
    from nvrc.machine.confine import plan

    confine = plan(privileges, root)

    def confine_child() -> None:  # pragma: no cover - runs in the child only
        try:
            confine()
        except OSError as err:
            raise RuntimeError(f"it cannot be confined: {err}") from err

    return confine_child


def _keep_everything() -> None:
    """Of PID 1's privileges."""


def start_piped(program: Program, root: str, take: Callable[[int], None]) -> int:
    """The same with its output in a pipe; `take` gets the end to read from, which does not wait."""
    writing = open_output(take)
    try:
        return start(program, root, writing)
    finally:
        os.close(writing)


def open_output(take: Callable[[int], None]) -> int:
    """Where a program is to write. Before there is one: nobody would look after it if its output cannot be taken."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    try:
        take(reading)
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    return writing


def _outlive_threads() -> None:
    """Steps that ran on threads are over by now; let the last thread finish leaving, so that the clone has but one.

    One that is stuck in the kernel, of a helper that overran, holds no lock of the interpreter and is not waited for.
    """
    patience = 1000
    while _thread._count() and patience:
        os.sched_yield()
        patience -= 1


def _reap(pid: int) -> None:
    """The child that could not become the program; PID 1's reaper may have been faster."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def _become(program: Program, root: str, failed: int, output: int,
            confine: Confine) -> None:  # pragma: no cover - in the child only
    report = failed
    try:
        if program.log_as:
            os.dup2(program.input if program.input >= 0 else os.open("/dev/null", os.O_RDONLY), 0)
        if output >= 0:
            os.dup2(output, 1)
            os.dup2(output, 2)
        report = os.dup2(failed, REPORT, inheritable=False)
        _prepare(program, root)
        confine()
        os.execve(program.path, (program.path, *program.args), dict(program.env))  # noqa: S606 - no shell is the point
    except BaseException as err:
        os.write(report, _FAILURE.pack(getattr(err, "errno", None) or 0) + repr(err).encode())
    finally:
        os._exit(127)


def _prepare(program: Program, root: str) -> None:  # pragma: no cover - runs in the child only
    linux.close_range(REPORT + 1)
    if root != "/":
        os.chroot(root)
    os.chdir("/")
    if program.own_pid_namespace:
        _mount_own_proc()
    if program.infiniband is not None:
        if not program.own_pid_namespace:
            linux.unshare(libc.CLONE_NEWNS)
        _show_only(paths.INFINIBAND_NODES, program.infiniband)
    if program.oom_score_adj is not None:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(score, b"%d" % program.oom_score_adj)
        os.close(score)
    if program.open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (program.open_files, program.open_files))
    os.umask(0o022)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _show_only(folder: str, nodes: tuple[Named, ...]) -> None:  # pragma: no cover - in the child only
    """These device nodes are all there is in a folder of /dev; what the kernel adds later stays out of sight."""
    linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=755,size=64k")
    for name, mode, major, minor in nodes:
        os.mknod(f"{folder}/{name}", mode, os.makedev(major, minor))
        os.chmod(f"{folder}/{name}", mode & 0o7777)  # whatever the umask took


def _mount_own_proc() -> None:  # pragma: no cover - runs in the child only
    """A /proc of the new PID namespace, in the mount namespace that was cloned with it."""
    try:
        linux.umount2("/proc", libc.MNT_DETACH)
    except OSError:
        pass  # nothing was mounted there
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
