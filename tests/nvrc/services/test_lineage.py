# SPDX-License-Identifier: Apache-2.0
"""Whose words count for a daemon: its own process, its children, its pipe, and nobody else's, root or not."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.daemons import FIRST_PID, Stage, gpu
from fakes.system import FakeSystem, bare_guest
from nvrc.machine.journal import Journal, Line
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.privileges import PERSISTENCED_ACCOUNT
from nvrc.machine.rights import Account
from nvrc.services.lineage import Speaker, introduce, speaks_for
from nvrc.services.table import FABRIC_MANAGER, PERSISTENCED, describe
from nvrc.steps import persistenced
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

PROGRAM = describe(PERSISTENCED, "")
STARTED = 40
SPEAKER = Speaker(PERSISTENCED, PROGRAM, STARTED, since_s=100.0, born_s=100.5)


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


def process(system: FakeSystem, pid: int, parent: int, *, started_s: float = 100.5, command: str = "x", name: str = "x") -> None:
    fields = ["S", str(parent), *["0"] * 17, str(int(started_s * 100)), "0"]
    system.put(f"/proc/{pid}/stat", f"{pid} ({name}) {' '.join(fields)}\n")
    system.put(f"/proc/{pid}/cmdline", f"{command}\0--verbose\0")


def said(uid: int = PERSISTENCED_ACCOUNT.uid, pid: int = 0, source: str = "", gid: int = PERSISTENCED_ACCOUNT.gid) -> Line:
    return Line(1, uid, "nvidia-persistenced: device 0000:40:00.0 - persistence mode enabled.", pid, source, gid)


@pytest.mark.parametrize(("line", "is_own"), [
    pytest.param(said(pid=STARTED), True, id="what was started"),
    pytest.param(said(pid=41), True, id="its child"),
    pytest.param(said(pid=42), True, id="its grandchild"),
    pytest.param(said(source="nvidia-persistenced"), True, id="its pipe"),
    pytest.param(said(pid=50), True, id="forked twice, by its command line"),
    pytest.param(said(pid=51), True, id="forked twice, by its PID file"),
    pytest.param(said(pid=52), False, id="the same program from before"),
    pytest.param(said(pid=53), False, id="another program of PID 1"),
    pytest.param(said(pid=60), False, id="another daemon's child"),
    pytest.param(said(pid=61), False, id="the same command line below another daemon"),
    pytest.param(said(pid=99), False, id="a process that is gone"),
    pytest.param(said(pid=0), False, id="no process"),
    pytest.param(said(uid=1000, pid=STARTED), False, id="another user"),
    pytest.param(said(uid=0, pid=STARTED), False, id="root"),
    pytest.param(said(pid=STARTED, gid=0), False, id="its pid, forged"),
    pytest.param(said(pid=50, gid=FABRIC_MANAGER.privileges.account.gid), False, id="its command line, of another daemon"),
    pytest.param(said(source="nv-fabricmanager", pid=STARTED), False, id="another daemon's pipe"),
    pytest.param(said(pid=70), False, id="a circle"),
    pytest.param(said(pid=71), False, id="no numbers"),
])
def test_who_speaks(system: FakeSystem, line: Line, is_own: bool) -> None:
    process(system, STARTED, 1)
    process(system, 41, STARTED, name="a) S 1 (b")
    process(system, 42, 41)
    process(system, 50, 1, command="/bin/nvidia-persistenced")
    process(system, 51, 1)
    system.put(PERSISTENCED.pid_file, "51\n")
    process(system, 52, 1, started_s=99.0, command="/bin/nvidia-persistenced")
    process(system, 53, 1, command="/bin/nv-fabricmanager")
    process(system, 30, 1, started_s=90.0)
    process(system, 60, 30)
    process(system, 61, 30, command="/bin/nvidia-persistenced")
    process(system, 70, 70)
    system.put("/proc/71/stat", b"71 (x) S \xff\xff")
    assert speaks_for(system, line, replace(SPEAKER)) is is_own


class Counting(FakeSystem):
    """Which processes were looked at."""

    looks: tuple[str, ...] = ()

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        self.looks += (path,)
        return super().read(path, limit)


def test_of_a_process_that_was_believed_only_its_start_is_looked_at_again(tmp_path: Path) -> None:
    bare_guest(str(tmp_path))
    system, speaker = Counting(str(tmp_path)), replace(SPEAKER)
    process(system, STARTED, 1)
    process(system, 42, 41)
    process(system, 41, STARTED)
    assert speaks_for(system, said(pid=42), speaker) and len(system.looks) == 3
    assert speaks_for(system, said(pid=42), speaker) and system.looks[3:] == ("/proc/42/stat",)
    process(system, 42, 30, started_s=131.0, command="/bin/nvidia-persistenced")
    assert not speaks_for(system, said(pid=42), speaker), "another process has its pid"
    process(system, 43, 30)
    assert not speaks_for(system, said(pid=43), speaker)
    assert not speaks_for(system, said(pid=42, gid=0), speaker)


@pytest.mark.parametrize("pid", [pytest.param(STARTED, id="itself"), pytest.param(41, id="its child")])
def test_a_pid_that_was_given_to_another_process_is_not_believed(system: FakeSystem, pid: int) -> None:
    """A container goes through the pids until it has that of a daemon which was reaped."""
    process(system, STARTED, 1)
    speaker = introduce(system, PERSISTENCED, PROGRAM, STARTED, 100.0)
    process(system, 41, STARTED)
    assert speaks_for(system, said(pid=pid), speaker)
    process(system, STARTED, 30, started_s=130.0)
    process(system, 41, STARTED, started_s=131.0)
    assert not speaks_for(system, said(pid=pid), speaker)


def test_what_was_gone_before_it_could_be_looked_at_is_nobody(system: FakeSystem) -> None:
    speaker = introduce(system, PERSISTENCED, PROGRAM, STARTED, 100.0)
    assert not speaks_for(system, said(pid=STARTED), speaker)
    process(system, STARTED, 1)
    assert not speaks_for(system, said(pid=STARTED), speaker)


class Ending(FakeSystem):
    """The process between the daemon and what was started ends when somebody looks for it."""

    born_s = 100.5

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        if path == "/proc/41/stat":
            process(self, 42, 1, started_s=self.born_s, command="/bin/nvidia-persistenced")
            raise FileNotFoundError(path)
        return super().read(path, limit)


@pytest.mark.parametrize(("born_s", "is_own"), [pytest.param(100.5, True, id="it is PID 1's now"), pytest.param(130.0, False, id="another got its pid")])
def test_a_parent_that_ends_between_two_looks(tmp_path: Path, born_s: float, is_own: bool) -> None:
    bare_guest(str(tmp_path))
    system = Ending(str(tmp_path))
    system.born_s = born_s
    process(system, STARTED, 1)
    process(system, 42, 41)
    assert speaks_for(system, said(pid=42), replace(SPEAKER)) is is_own


@given(st.binary(max_size=60))
def test_any_stat_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    system = FakeSystem(str(tmp_path_factory.getbasetemp() / "any-stat"))
    system.put("/proc/9/stat", data)
    assert not speaks_for(system, said(pid=9), replace(SPEAKER))


def test_a_real_socket_tells_the_senders_process(system: FakeSystem) -> None:
    descriptor = system.bind_log(paths.DEV_LOG)
    heard: list[Line] = []
    journal = Journal(system, descriptor)
    journal.listen(heard.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(system.real_path(paths.DEV_LOG))
        sock.send(b"<30>one")
        if not (child := os.fork()):
            sock.send(b"<30>two")
            os._exit(0)
        os.waitpid(child, 0)
    journal.drain()
    os.close(descriptor)
    assert [(line.text, line.uid, line.pid) for line in heard] == [("one", os.getuid(), os.getpid()), ("two", os.getuid(), child)]
    program = describe(FABRIC_MANAGER, "")
    assert program.privileges is not None
    here = replace(program, privileges=replace(program.privileges, account=Account(os.getuid(), os.getgid())))
    assert speaks_for(LinuxSystem(), heard[0], introduce(LinuxSystem(), FABRIC_MANAGER, here, os.getppid(), since_s=0.0))


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid is forged with CAP_SYS_ADMIN")
def test_a_pid_can_be_forged_and_the_group_tells(system: FakeSystem) -> None:
    """What the fabric manager and the worker could do as root in name: speak with the pid of another daemon of root's."""
    descriptor = system.bind_log(paths.DEV_LOG)
    heard: list[Line] = []
    journal = Journal(system, descriptor)
    journal.listen(heard.append)
    victim, forger = Account(0, 64998), Account(0, 64999)
    if not (child := os.fork()):
        os.setresgid(*[forger.gid] * 3)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(system.real_path(paths.DEV_LOG))
            claim = struct.pack("3i", os.getppid(), 0, forger.gid)
            sock.sendmsg([b"<30>x: FM starting NvLink Inband"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claim)])
        os._exit(0)
    os.waitpid(child, 0)
    journal.drain()
    os.close(descriptor)
    (line,) = heard
    assert (line.uid, line.pid) == (0, os.getpid()), "the kernel let it"
    program = describe(FABRIC_MANAGER, "")
    assert program.privileges is not None
    for account, is_own in ((victim, False), (forger, True)):
        row = replace(program, privileges=replace(program.privileges, account=account))
        assert speaks_for(LinuxSystem(), line, introduce(LinuxSystem(), FABRIC_MANAGER, row, os.getpid(), 0.0)) is is_own


def test_attached_is_what_the_daemon_says_and_no_other_root(tmp_path: Path) -> None:
    stage = Stage(str(tmp_path))
    stage.program("/bin/nvidia-persistenced")
    stage.says(1, f"nvidia-persistenced: device {gpu(0).bdf} - registered", pid=666)
    stage.says(2, f"nvidia-persistenced: device {gpu(0).bdf} - persistence mode enabled.", pid=666)
    stage.system.put(paths.PERSISTENCED_PID, str(FIRST_PID))
    stage.ends(3)
    with pytest.raises(NvrcError, match="0 of 1 GPUs attached"):
        persistenced.run(stage.system, stage.facts())


def test_another_daemons_pipe_is_no_marker(system: FakeSystem) -> None:
    speaker = introduce(system, FABRIC_MANAGER, describe(FABRIC_MANAGER, ""), STARTED, 100.0)
    assert not speaks_for(system, Line(1, 0, FABRIC_MANAGER.marker, source="nvidia-persistenced"), speaker)
    assert speaks_for(system, Line(1, 0, FABRIC_MANAGER.marker, source="nv-fabricmanager"), speaker)
