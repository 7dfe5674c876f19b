# SPDX-License-Identifier: Apache-2.0
"""The control socket: who is answered, with what, and what clients that misbehave can do to the one who answers."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvrc.commands.status import find_status
from nvrc.machine.control import BATCH, ask, listen, serve
from nvrc.machine.foreign import Burden

OWN = os.getuid()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


@pytest.fixture
def listener(path: str) -> Iterator[int]:
    descriptor = listen(path)
    yield descriptor
    os.close(descriptor)


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(path)
    return client


def read_all(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_root_alone_may_connect_and_what_was_there_is_replaced(path: str) -> None:
    Path(path).write_text("left by somebody")
    descriptor = listen(path)
    try:
        found = os.lstat(path)
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
    finally:
        os.close(descriptor)


def test_a_client_gets_the_whole_document(path: str, listener: int) -> None:
    document = os.urandom(1 << 20)  # more than a socket holds by default
    client = connect(path)
    serve(listener, lambda: document, Burden(), (OWN,))
    got = read_all(client)
    assert got == document if OWN == 0 else document.startswith(got)


def test_nobody_waiting_is_no_event(listener: int) -> None:
    serve(listener, lambda: pytest.fail("nobody asked"), Burden(), (OWN,))


def test_somebody_else_gets_nothing(path: str, listener: int) -> None:
    client = connect(path)
    serve(listener, lambda: pytest.fail("must not be made"), Burden(), (OWN + 1,))
    assert read_all(client) == b""


def test_clients_that_are_gone_or_never_read_cost_nothing(path: str, listener: int) -> None:
    before = descriptors()
    connect(path).close()
    silent = [connect(path) for _ in range(BATCH - 1)]
    serve(listener, lambda: b"x" * 4096, Burden(), (OWN,))
    assert descriptors() == before + len(silent)
    assert {read_all(client) for client in silent} == {b"x" * 4096}


def test_an_answer_that_cannot_be_made_leaves_no_connection(path: str, listener: int) -> None:
    client, before = connect(path), descriptors()
    with pytest.raises(ZeroDivisionError):
        serve(listener, lambda: b"%d" % (1 // 0), Burden(), (OWN,))
    assert descriptors() == before
    assert read_all(client) == b""


def test_one_batch_at_a_time_and_one_document_for_all_of_it(path: str, listener: int) -> None:
    made: list[int] = []

    def answer() -> bytes:
        made.append(1)
        return b"%d" % len(made)

    clients = [connect(path) for _ in range(BATCH + 1)]
    serve(listener, answer, Burden(), (OWN,))
    assert [read_all(client) for client in clients[:BATCH]] == [b"1"] * BATCH
    clients[BATCH].setblocking(False)
    with pytest.raises(BlockingIOError):
        clients[BATCH].recv(1)
    serve(listener, answer, Burden(), (OWN,))
    assert clients[BATCH].recv(8) == b"2"
    clients[BATCH].close()


def test_asking_is_connecting(path: str, listener: int) -> None:
    answers = threading.Thread(target=lambda: (os.set_blocking(listener, True), serve_one(listener)))
    answers.start()
    assert ask(path) == b"status"
    answers.join()


def serve_one(listener: int) -> None:
    with socket.socket(fileno=os.dup(listener)) as server:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"status")


def test_nobody_there_or_nothing_said_is_an_error(path: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask(path)
    descriptor = listen(path)
    with pytest.raises(BlockingIOError):
        ask(path, 0.01)
    os.close(descriptor)
    with pytest.raises(ConnectionRefusedError):
        ask(path)


def test_without_an_answer_the_file_is_read(path: str, tmp_path: Path) -> None:
    kept = tmp_path / "status.json"
    kept.write_bytes(b"kept")
    assert find_status(path, str(kept)) == (str(kept), b"kept")
