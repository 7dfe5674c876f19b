# SPDX-License-Identifier: Apache-2.0
"""LinuxSystem below a temporary root: what an ordinary user may do with it, and what it refuses to anybody but PID 1."""

from __future__ import annotations

import itertools
import os
import pty
import signal
import socket
import stat
import termios
from collections.abc import Callable, Iterator
from errno import EBADF, EINVAL, ENOEXEC, ENOSPC, ENOSYS, EPERM
from pathlib import Path

import pytest

from nvrc.machine import linux
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.privileges import WORKER
from nvrc.machine.processes import REAPED
from nvrc.machine.program import Program
from nvrc.machine.system import Node
from nvrc.vocabulary import paths


@pytest.fixture
def system(tmp_path: Path) -> LinuxSystem:
    (tmp_path / "run").mkdir()
    (tmp_path / "dev").mkdir()
    return LinuxSystem(str(tmp_path))


@pytest.mark.parametrize("act", [
    pytest.param(lambda s: s.mount("proc", "/proc", "proc", 0), id="mount"),
    pytest.param(lambda s: s.set_hostname("x"), id="hostname"),
    pytest.param(lambda s: s.raise_loopback(), id="loopback"),
    pytest.param(lambda s: s.drop_audit_messages(), id="audit"),
    pytest.param(lambda s: s.load_module("/lib/x.ko", ""), id="load-module"),
    pytest.param(lambda s: s.make_node("/dev/x", Node(0o020600, 1, 3)), id="make-node"),
    pytest.param(lambda s: s.ioctl("/dev/null", 0, b""), id="ioctl"),
    pytest.param(lambda s: s.power_off(), id="power-off"),
    pytest.param(lambda s: s.restart(), id="restart"),
])
def test_it_refuses_what_only_pid_1_may_do(system: LinuxSystem, act: Callable[[LinuxSystem], None]) -> None:
    with pytest.raises(PermissionError, match="this process is not PID 1"):
        act(system)


def test_reads_are_bounded(system: LinuxSystem) -> None:
    system.write("/run/long", b"x" * 200_000)
    assert len(system.read("/run/long")) == 200_000
    assert len(system.read("/run/long", 70_000)) == 70_000


def test_publish_replaces_whole_files(system: LinuxSystem) -> None:
    system.publish("/run/doc", b"one")
    system.publish("/run/doc", b"two", 0o600)
    assert system.read("/run/doc") == b"two"
    assert os.stat(system.real_path("/run/doc")).st_mode & 0o777 == 0o600
    assert system.list_dir("/run") == ("doc",)


def test_publish_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    class Full(LinuxSystem):
        full = False

        def _write(self, path: str, data: bytes, flags: int, mode: int) -> None:
            super()._write(path, data[:1] if self.full else data, flags, mode)
            if self.full:
                raise OSError(ENOSPC, "No space left on device")

    system = Full(str(tmp_path))
    system.publish("/doc", b"one")
    system.full = True
    with pytest.raises(OSError, match="No space"):
        system.publish("/doc", b"two")
    assert system.list_dir("/") == ("doc",)
    assert system.read("/doc") == b"one"


def test_publish_into_a_missing_directory_says_so(system: LinuxSystem) -> None:
    with pytest.raises(FileNotFoundError):
        system.publish("/absent/doc", b"x")


def test_links_replace_what_had_the_name(system: LinuxSystem) -> None:
    system.make_link("/dev/fd", "a")
    system.make_link("/dev/fd", "b")
    assert os.readlink(system.real_path("/dev/fd")) == "b"


def test_what_has_a_name_is_told_without_following_links(system: LinuxSystem) -> None:
    system.make_link("/dev/tty", "/dev/null")
    found = system.find_node("/dev/tty")
    assert found is not None and stat.S_ISLNK(found.mode)
    assert LinuxSystem().find_node("/dev/null")[:3] == (0o020666, 1, 3)  # type: ignore[index]
    assert system.find_node("/dev/absent") is None


def test_executable_means_a_regular_file_with_an_execute_bit(system: LinuxSystem) -> None:
    system.write("/run/x", b"")
    os.chmod(system.real_path("/run/x"), 0o700)
    assert system.exists("/run/x", executable=True)
    assert system.exists("/run") and not system.exists("/run", executable=True)
    assert not system.exists("/absent")


def test_lines_go_to_the_kernel_log_with_the_level_that_nothing_silences(system: LinuxSystem) -> None:
    os.makedirs(system.real_path("/proc/sys/kernel"))
    system.write(paths.PRINTK_DEVKMSG, b"ratelimit\n")
    system.write(paths.KMSG, b"")
    system.say("nvrc: hello")
    system.say("nvrc: quiet", 6)
    assert system.read(paths.KMSG) == b"<8>nvrc: hello\n<14>nvrc: quiet\n"


def test_lines_go_to_standard_error_before_there_is_a_kernel_log(tmp_path: Path) -> None:
    ready, send = os.pipe()
    system = LinuxSystem(str(tmp_path), console=send)
    system.say("nvrc: early")
    os.close(send)
    assert os.read(ready, 100) == b"nvrc: early\n"
    os.close(ready)
    system.say("nvrc: nobody hears this")


def test_lines_pass_by_a_kernel_log_that_drops_them(system: LinuxSystem) -> None:
    os.makedirs(system.real_path("/proc/sys/kernel"))
    system.write(paths.PRINTK_DEVKMSG, b"off\n")
    system.write(paths.KMSG, b"")
    system.say("nvrc: on standard error")
    assert system.read(paths.KMSG) == b""


def test_the_log_socket_takes_messages_of_anybody_and_tells_the_sender(system: LinuxSystem) -> None:
    descriptor = system.bind_log(paths.DEV_LOG)
    with socket.socket(fileno=descriptor) as log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", system.real_path(paths.DEV_LOG))
        data, extra, _, _ = log.recvmsg(16, socket.CMSG_SPACE(12))
        assert data == b"x"
        assert extra[0][1] == socket.SCM_CREDENTIALS
        assert os.stat(system.real_path(paths.DEV_LOG)).st_mode & 0o777 == 0o666


def test_a_reader_sees_what_is_added_from_now_on(system: LinuxSystem) -> None:
    system.append("/run/log", b"old\n", 100)
    descriptor = system.open_reader("/run/log")
    system.append("/run/log", b"new\n", 100)
    assert os.read(descriptor, 100) == b"new\n"
    os.close(descriptor)


def test_kernel_records_end_where_the_log_ends(system: LinuxSystem) -> None:
    assert list(system.kernel_records()) == []
    system.write(paths.KMSG, b"6,1,2,-;text\n")
    assert list(system.kernel_records()) == [b"6,1,2,-;text\n"]


def test_time_is_the_boot_clock(system: LinuxSystem) -> None:
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    assert abs(system.now() - uptime) < 60
    assert LinuxSystem("/").real_path("/dev") == "/dev"


# start

def run(program: Program) -> int:
    return os.waitpid(LinuxSystem().start(program), 0)[1]


def test_a_program_is_started_with_just_what_it_is_given() -> None:
    script = 'test "$(env | sort | tr "\\n" " ")" = "A=b PWD=/ " && test -z "$(ls /proc/self/fd | grep -v "^[0-3]$")"'
    assert run(Program(path="/usr/bin/dash", privileges=None, args=("-c", "unset OLDPWD _; " + script), env=(("A", "b"),))) == 0


def test_a_program_that_is_not_there_is_an_error_here_not_in_the_child() -> None:
    with pytest.raises(FileNotFoundError):
        LinuxSystem().start(Program(path="/no/such/program", privileges=None))


def test_limits_are_set_in_the_child_only() -> None:
    script = "test $(ulimit -n) = 100 && test $(cat /proc/self/oom_score_adj) = 700"
    assert run(Program(path="/bin/sh", privileges=None, args=("-c", script), open_files=100, oom_score_adj=700)) == 0
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        assert file.read() != "700\n"


def test_children_are_signalled_by_pid() -> None:
    system = LinuxSystem()
    pid = system.start(Program(path="/bin/sleep", privileges=None, args=("30",)))
    system.signal(pid, 15)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 15


def test_a_program_whose_output_nobody_can_take_is_not_started(tmp_path: Path) -> None:
    """Or it would run, and nobody would look after it."""
    def refuse(_descriptor: int, _name: str) -> None:
        raise OSError(ENOSPC, "the loop is full")

    system, made, before = LinuxSystem(), tmp_path / "made", os.listdir("/proc/self/fd")
    system.output = refuse
    with pytest.raises(OSError, match="the loop is full"):
        system.start(Program(path="/usr/bin/touch", args=(str(made),), log_as="touch", privileges=None))
    with pytest.raises(OSError, match="the loop is full"):
        system.fork(lambda _answering: made.touch(), WORKER)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert not made.exists()


# linux

def test_a_failed_call_carries_errno_and_path() -> None:
    with pytest.raises(OSError, match="/no/such/mount") as caught:
        linux.umount2("/no/such/mount")
    assert caught.value.errno in (1, 2)


def test_a_module_that_is_none_is_refused_by_the_kernel() -> None:
    with pytest.raises(OSError, match="NUL"):
        linux.init_module(b"x", "a=\0")
    reading, writing = os.pipe()
    refusals = (EPERM, EINVAL, ENOEXEC, EBADF, ENOSYS)
    with pytest.raises(OSError) as caught:
        linux.init_module(b"no module", "")
    assert caught.value.errno in refusals
    with pytest.raises(OSError) as caught:
        linux.finit_module(reading, "", 0)
    assert caught.value.errno in refusals
    os.close(reading)
    os.close(writing)


def test_an_ioctl_gives_back_what_the_kernel_made_of_the_structure() -> None:
    controller, terminal = pty.openpty()
    size = linux.ioctl(os.ttyname(terminal), termios.TIOCGWINSZ, b"x" * 8)
    assert size == bytes(8)
    os.close(controller)
    os.close(terminal)


@pytest.fixture
def told() -> Iterator[int]:
    """A descriptor that tells of SIGCHLD, as PID 1 has one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    descriptor = linux.signalfd(frozenset({signal.SIGCHLD}))
    yield descriptor
    linux.read_signals(descriptor)
    os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_children_that_end_without_end_leave_time_for_others(monkeypatch: pytest.MonkeyPatch, told: int) -> None:
    """And a signal has the rest reaped in the next turn."""
    pids = itertools.count(2)
    monkeypatch.setattr(linux, "wait_any", lambda: (next(pids), 0))
    assert len(LinuxSystem().reap()) == REAPED
    assert linux.read_signals(told) == [signal.SIGCHLD]


def test_nobody_is_asked_to_reap_what_is_not_there(monkeypatch: pytest.MonkeyPatch, told: int) -> None:
    monkeypatch.setattr(linux, "wait_any", iter([(2, 0), None]).__next__)
    assert LinuxSystem().reap() == [(2, 0)]
    assert linux.read_signals(told) == []


def test_reaping_nothing_is_nothing() -> None:
    assert linux.wait_any() is None
