# SPDX-License-Identifier: Apache-2.0
"""Descriptors that come with a message: nothing that their maker has prepared holds PID 1 up. Real sockets."""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.machine import control, foreign
from nvrc.machine.journal import Journal, Line
from nvrc.vocabulary import paths

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
LINGERS_S = 30
AT_ONCE_S = 10


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


def make_lingering() -> tuple[socket.socket, list[socket.socket]]:
    """A connection whose last close waits for a peer that never reads, and what keeps that peer."""
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    ours.setblocking(False)
    try:
        while True:
            ours.send(b"x" * (1 << 16))
    except BlockingIOError:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGERS_S))
    ours.setblocking(True)
    return ours, [listener, theirs]


@pytest.fixture
def attacker() -> Iterator[Callable[[Callable[[tuple[int, ...]], None]], None]]:
    """A process that sends lingering connections by `send`, has none of them any more, and stays."""
    children: list[int] = []

    def attack(send: Callable[[tuple[int, ...]], None]) -> None:
        done, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                lingering, kept = make_lingering()
                number = lingering.detach()
                send((number,) * 3)
                # Who closes first here waits for nothing: what was sent is open as well.
                os.close(number)
                os.write(told, b"x")
                time.sleep(120)
                assert kept
            finally:
                os._exit(0)
        children.append(child)
        os.close(told)
        assert os.read(done, 1) == b"x"
        os.close(done)

    yield attack
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def send(sock: socket.socket, descriptors: tuple[int, ...], text: bytes = b"<30>hello") -> None:
    sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """Of this process, dead ones among them."""
    return {int(word) for task in os.listdir("/proc/self/task")
            for word in Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split()}


def reap(before: set[int]) -> int:
    """New children that end: those that closed what came."""
    new = children() - before
    for pid in new:
        os.waitpid(pid, 0)
    return len(new)


@pytest.mark.long
def test_the_log_is_read_whatever_comes_with_a_line(system: FakeSystem, attacker: Callable[[Callable[[tuple[int, ...]], None]], None]) -> None:
    descriptor = system.bind_log(paths.DEV_LOG)
    journal, heard = Journal(system, descriptor), list[Line]()
    journal.listen(heard.append)

    def log(descriptors: tuple[int, ...]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(system.real_path(paths.DEV_LOG))
            send(sock, descriptors)
            sock.send(b"<30>after it")

    attacker(log)
    before, others, began = open_descriptors(), children(), time.monotonic()
    journal.drain()
    assert [line.text for line in heard] == ["hello"], "others get their turn"
    journal.drain()
    assert time.monotonic() - began < AT_ONCE_S
    assert [line.text for line in heard] == ["hello", "after it"]
    assert open_descriptors() == before
    assert reap(others) == 1
    os.close(descriptor)


@pytest.mark.long
def test_whoever_asks_for_the_status_sends_nothing_that_holds_up(system: FakeSystem, tmp_path: Path, attacker: Callable[[Callable[[tuple[int, ...]], None]], None]) -> None:
    path = str(tmp_path / "control.sock")
    listener = control.listen(path)

    def ask(descriptors: tuple[int, ...]) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        send(sock, descriptors)
        sock.send(b"more")
        send(sock, descriptors)
        sock.detach()

    attacker(ask)
    before, others, began = open_descriptors(), children(), time.monotonic()
    assert control.serve(listener, lambda: b"{}", foreign.Burden(), (os.getuid(),))
    assert time.monotonic() - began < AT_ONCE_S
    assert open_descriptors() == before
    assert reap(others) == 1
    os.close(listener)


def test_a_client_without_any_costs_no_process(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    listener = control.listen(path)
    others = children()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        sock.send(b"nothing that anybody reads")
        control.serve(listener, lambda: b"{}", foreign.Burden(), (os.getuid(),))
        assert sock.recv(10) == b"{}"
    assert children() == others
    os.close(listener)


class Shortage:
    """Processes, of which a container can have all."""

    is_over = False

    def fork(self) -> int:
        if not self.is_over:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.fork()


@pytest.mark.long
def test_the_log_waits_for_a_process_that_closes_what_came(system: FakeSystem, attacker: Callable[[Callable[[tuple[int, ...]], None]], None]) -> None:
    descriptor, shortage = system.bind_log(paths.DEV_LOG), Shortage()
    journal, heard = Journal(system, descriptor, burden=foreign.Burden(shortage.fork)), list[Line]()
    journal.listen(heard.append)

    def log(descriptors: tuple[int, ...]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(system.real_path(paths.DEV_LOG))
            send(sock, descriptors)
            send(sock, descriptors, b"<30>after it")

    attacker(log)
    before, others, began = open_descriptors(), children(), time.monotonic()
    assert [journal.drain() for _ in range(3)] == [False] * 3
    assert time.monotonic() - began < AT_ONCE_S
    assert [line.text for line in heard] == ["hello"], "what nobody can close yet gets no company"
    shortage.is_over = True
    assert [journal.drain() for _ in range(2)] == [True] * 2
    assert [line.text for line in heard] == ["hello", "after it"]
    assert open_descriptors() == before
    assert reap(others) == 2
    os.close(descriptor)


@pytest.mark.long
def test_nobody_else_is_answered_while_what_one_sent_cannot_be_closed(tmp_path: Path, attacker: Callable[[Callable[[tuple[int, ...]], None]], None]) -> None:
    path, shortage = str(tmp_path / "control.sock"), Shortage()
    listener, burden = control.listen(path), foreign.Burden(shortage.fork)

    def ask(descriptors: tuple[int, ...]) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        send(sock, descriptors)
        send(sock, descriptors)
        sock.detach()

    attacker(ask)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.connect(path)
        other.setblocking(False)
        before, others, began = open_descriptors(), children(), time.monotonic()
        assert not control.serve(listener, lambda: b"{}", burden, (os.getuid(),))
        assert not control.serve(listener, lambda: b"{}", burden, (os.getuid(),))
        with pytest.raises(BlockingIOError):
            other.recv(10)
        shortage.is_over = True
        assert control.serve(listener, lambda: b"{}", burden, (os.getuid(),))
        assert other.recv(10) == b"{}"
        assert time.monotonic() - began < AT_ONCE_S
        assert open_descriptors() == before
    assert reap(others) == 1
    os.close(listener)


def test_all_that_one_message_may_carry_is_taken(system: FakeSystem) -> None:
    """What there is no room for the kernel closes, in whoever reads."""
    descriptor = system.bind_log(paths.DEV_LOG)
    journal = Journal(system, descriptor)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, open("/dev/null", "rb") as file:
        sock.connect(system.real_path(paths.DEV_LOG))
        send(sock, (file.fileno(),) * foreign.MOST)
        before, others = open_descriptors(), children()
        with pytest.raises(OSError, match=r"Invalid argument|Too many"):
            send(sock, (file.fileno(),) * (foreign.MOST + 1))
        journal.drain()
        assert open_descriptors() == before
    assert reap(others) == 1
    os.close(descriptor)
