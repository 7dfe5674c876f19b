# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.system import FakeSystem, bare_guest
from nvrc.machine.journal import KERNEL, KERNEL_LOST, LOST, RING_LINES, Journal, Line, kernel_warning, split_priority
from nvrc.vocabulary import paths
from nvrc.vocabulary.transcript import parse_line


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


@pytest.fixture
def log(system: FakeSystem) -> Iterator[int]:
    descriptor = system.bind_log(paths.DEV_LOG)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def sender(system: FakeSystem, log: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(system.real_path(paths.DEV_LOG))
        yield sock


def test_messages_are_kept_with_sender_and_place(system: FakeSystem, log: int, sender: socket.socket) -> None:
    journal = Journal(system, log)
    sender.send(b"<30>daemon: one\n\0")
    journal.drain()
    place = journal.serial
    sender.send("<27>daemon: zw\xf6lf".encode("latin-1"))
    journal.drain()
    assert [line.text for line in journal.since(place)] == ["daemon: zw\ufffdlf"]
    assert [line.uid for line in journal.since(0)] == [os.getuid()] * 2
    assert system.text(paths.SYSLOG) == "daemon: one\ndaemon: zw\ufffdlf\n"
    assert os.stat(system.real_path(paths.SYSLOG)).st_mode & 0o777 == 0o600


@pytest.mark.long
def test_a_flood_keeps_the_newest_in_bounded_memory(system: FakeSystem, log: int, sender: socket.socket) -> None:
    journal = Journal(system, log)
    sender.setblocking(False)
    sent = 0
    while sent < 20_000:
        try:
            sender.send(b"<6>flood: %d" % sent)
            sent += 1
        except BlockingIOError:
            journal.drain()
    journal.drain()
    assert journal.serial == 20_000
    assert len(journal.since(0)) == RING_LINES
    assert journal.tail(1) == ("flood: 19999",)


def test_the_file_is_begun_anew_when_it_is_full(system: FakeSystem) -> None:
    for number in range(30):
        system.append(paths.SYSLOG, b"%08d\n" % number, 90)
    assert system.text(paths.SYSLOG).splitlines()[-1] == "00000029"
    assert os.stat(system.real_path(paths.SYSLOG)).st_size <= 90
    assert system.text(f"{paths.SYSLOG}.old").splitlines()[-1] == "00000019"


def test_a_full_run_costs_the_file_not_the_ring(system: FakeSystem, log: int, sender: socket.socket) -> None:
    system.fail[f"append {paths.SYSLOG}"] = OSError(ENOSPC, "No space left on device")
    journal = Journal(system, log)
    sender.send(b"<6>kept")
    journal.drain()
    assert journal.tail() == ("kept",)
    assert journal.file_losses == 1


def test_only_what_is_urgent_enough_is_forwarded(system: FakeSystem, log: int, sender: socket.socket) -> None:
    journal = Journal(system, log)
    sender.send(b"<27>before")
    journal.drain()
    journal.forward(4)
    for text in (b"<27>error", b"<28>warning", b"<30>info", b"no level"):
        sender.send(text)
    journal.drain()
    assert system.said == ["nvrc: log error", "nvrc: log warning"]
    assert system.levels == [0, 0], "shown on a console that `quiet` keeps to what is urgent"


@pytest.mark.parametrize("datagram", [b"<27>x\rnvrc: READY in 1.0s mode=gpu gpus=1 cdi=1 agent=9", b"<27>\x1b[2Jgone", b"<27>a\x0bb\x0cc",
                                      b"<27>a\nnvrc: FATAL", "<27>\u2028nvrc: END".encode(), b"<27>\xff\x7f", b"<27>\\x0d"])
def test_what_is_forwarded_stays_one_printable_line(system: FakeSystem, log: int, sender: socket.socket, datagram: bytes) -> None:
    journal = Journal(system, log)
    journal.forward(7)
    sender.send(datagram)
    journal.drain()
    (said,) = system.said
    assert said.startswith("nvrc: log ")
    assert said.isascii() and said.isprintable()
    assert parse_line(said) is None


@pytest.mark.parametrize(("datagram", "text"), [
    (b"<30>a", "a"), (b"<999>a", "a"), (b"<1x>a", "<1x>a"), (b"<>a", "<>a"), (b"a<1>", "a<1>"), (b"", ""),
    (b"<12345>a", "<12345>a"), (b"<30>a\nb\n", "a b"), (b"\xff", "\ufffd"), (b"<5>", ""),
])
def test_priority_is_taken_off(datagram: bytes, text: str) -> None:
    assert split_priority(datagram)[1] == text


@given(st.binary(max_size=64))
def test_any_datagram_becomes_one_line(datagram: bytes) -> None:
    assert "\n" not in split_priority(datagram)[1]


@pytest.mark.parametrize(("record", "text"), [
    (b"4,10,99,-;nvidia: module verification failed\n SUBSYSTEM=pci\n", "nvidia: module verification failed"),
    (b"6,11,99,-;an info line\n", ""),
    (b"12,12,99,-;said by a program\n", ""),
    (b"garbage", ""), (b"", ""),
])
def test_kernel_records(record: bytes, text: str) -> None:
    assert kernel_warning(record) == text


def test_kernel_warnings_follow_the_daemons_lines_in_the_tail(system: FakeSystem) -> None:
    ready, send = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)  # a packet pipe: each read gives one write
    journal = Journal(system, kernel_log=ready)
    os.write(send, b"3,1,5,-;first\n")
    os.write(send, b"6,2,6,-;quiet\n")
    journal.read_kernel()
    assert journal.tail() == ("first",)
    os.close(ready)
    os.close(send)


def test_a_kernel_log_that_was_overwritten_is_read_on(system: FakeSystem) -> None:
    """/dev/kmsg answers EPIPE once when records were lost; a write end of a closed pipe answers the same way."""
    journal, heard = Journal(system), []
    journal.listen(heard.append)
    answers: list[bytes | OSError] = [BrokenPipeError(), b"2,1,5,-;after the gap\n", BlockingIOError()]

    def read(_descriptor: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    journal.read_kernel(read)
    assert journal.tail() == (LOST, "after the gap")
    assert [line.uid for line in heard] == [KERNEL_LOST, KERNEL]


def test_a_programs_output_is_kept_by_lines_under_its_name(system: FakeSystem) -> None:
    ready, send = os.pipe2(os.O_NONBLOCK)
    journal = Journal(system)
    assert journal.read_output(ready, "tool")
    os.write(send, b"one\n\ntw")
    assert journal.read_output(ready, "tool")
    os.write(send, b"o\nend")
    assert journal.read_output(ready, "tool")
    os.close(send)
    assert not journal.read_output(ready, "tool")
    os.close(ready)
    assert journal.tail() == ("tool: one", "tool: two", "tool: end")
    assert system.text(paths.SYSLOG) == "tool: one\ntool: two\ntool: end\n"


def test_a_line_without_end_does_not_grow(system: FakeSystem) -> None:
    ready, send = os.pipe2(os.O_NONBLOCK)
    journal = Journal(system)
    for _ in range(10):
        os.write(send, b"x" * 4096)
        journal.read_output(ready, "tool")
    assert len(journal.tail(20)) == 10
    os.close(send)
    os.close(ready)


def test_listeners_hear_daemons_and_kernel_until_they_are_taken_away(
        system: FakeSystem, log: int, sender: socket.socket) -> None:
    heard: list[tuple[int, str]] = []

    def hear(line: Line) -> None:
        heard.append((line.uid, line.text))

    journal = Journal(system, log)
    journal.listen(hear)
    sender.send(b"<30>daemon: one")
    journal.drain()
    answers = [b"3,1,5,-;NVRM: Xid\n"]
    journal.read_kernel(lambda _descriptor: answers.pop() if answers else b"")
    journal.unlisten(hear)
    sender.send(b"<30>daemon: two")
    journal.drain()
    assert heard == [(os.getuid(), "daemon: one"), (KERNEL, "NVRM: Xid")]
