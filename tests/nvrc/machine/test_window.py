# SPDX-License-Identifier: Apache-2.0
"""The status for the host: the port of PID 1's, and the host's two ways to it. Real sockets; vsock where this kernel has it."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.full_loop import FullLoop
from nvrc.cli import main
from nvrc.machine.outside import ask_vm
from nvrc.machine.window import BATCH, MOST, NOBODY, PATIENCE_S, Window, accept, is_host
from nvrc.report.status import Status, to_json
from nvrc.vocabulary.verdict import Verdict

DOCUMENT = to_json(Status(program="nvrc 0.1.0", verdict=Verdict.READY, mode="gpu", updated_s=3.0))


class Opened:
    def __init__(self, listener: socket.socket, document: bytes) -> None:
        self.clock, self.listener, self.made = 100.0, listener, 0
        self.loop = FullLoop(lambda: self.clock)
        self.document = document
        listener.setblocking(False)
        self.window = Window(self.loop, listener.fileno(), self.answer, lambda: self.clock)
        self.clients: list[socket.socket] = []

    def answer(self) -> bytes:
        self.made += 1
        return self.document

    def connect(self) -> socket.socket:
        client = socket.socket(self.listener.family)
        self.clients.append(client)
        client.settimeout(5)
        client.connect(self.listener.getsockname())
        self.turn()
        return client

    def turn(self) -> None:
        for _ in range(5):
            self.loop.turn()

    def serve(self, until: Callable[[], bool]) -> None:
        limit = time.monotonic() + 10
        while not until() and time.monotonic() < limit:
            self.loop.turn()
            time.sleep(0.001)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], Opened]]:
    made: list[Opened] = []

    def make(document: bytes) -> Opened:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "port"))
        listener.listen(16)
        made.append(Opened(listener, document))
        return made[-1]

    yield make
    for one in made:
        for client in one.clients:
            client.close()
        one.loop.close()
        one.listener.close()


MakeOpened = Callable[[bytes], Opened]


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_a_connection_gets_the_document_and_the_end(opened: MakeOpened) -> None:
    port = opened(DOCUMENT)
    assert read_all(port.connect()) == DOCUMENT
    assert not port.window.is_busy


def test_what_does_not_fit_at_once_is_sent_as_it_is_read(opened: MakeOpened) -> None:
    port = opened(b"x" * (8 << 20))
    client, found = port.connect(), list[bytes]()
    reader = threading.Thread(target=lambda: found.append(read_all(client)))
    reader.start()
    port.serve(lambda: not reader.is_alive())
    reader.join(60)
    assert len(found[0]) == 8 << 20


def test_hosts_that_never_read_are_few_and_closed_in_time(opened: MakeOpened) -> None:
    port = opened(b"x" * (8 << 20))
    clients = [port.connect() for _ in range(MOST + 2)]
    assert clients[-1].recv(1) == b""
    port.clock += PATIENCE_S
    port.turn()
    assert not port.window.is_busy
    port.document = DOCUMENT
    assert read_all(port.connect()) == DOCUMENT


def test_a_client_that_goes_away_costs_nothing(opened: MakeOpened) -> None:
    port = opened(b"x" * (8 << 20))
    port.connect().close()
    port.turn()
    assert not port.window.is_busy
    port.clock += PATIENCE_S
    port.turn()


def test_what_root_has_used_up_of_the_loop_costs_no_connection(opened: MakeOpened) -> None:
    """A daemon that is root in name uses up all that root may watch in three seconds."""
    port = opened(DOCUMENT)
    port.loop.is_full = True
    assert read_all(port.connect()) == DOCUMENT
    assert not port.window.is_busy


@pytest.mark.parametrize(("address", "answered"), [((2, 1024), True), ((1, 1024), False), ((3, 5), False), ("", True)])
def test_the_host_alone_is_answered(address: object, answered: bool) -> None:
    assert is_host(address) == answered


def test_who_is_no_host_takes_a_turn_and_not_all_of_them() -> None:
    """Whoever connects faster than PID 1 accepts kept it in one turn for as long as that lasted."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener, contextlib.ExitStack() as kept:
        port = Opened(listener, DOCUMENT)
        for _ in range(2 * BATCH):
            kept.enter_context(socket.create_connection(listener.getsockname()))
        port.loop.turn()
        left = iter(lambda: accept(listener.fileno()), NOBODY)
        assert (len(list(left)), port.made) == (BATCH, 0)
        port.loop.close()


# The host's side ------------------------------------------------------------------------------------------------------


def serve_once(path: Path, play: Callable[[socket.socket], None]) -> threading.Thread:
    """A VMM's socket: what it does with whoever comes first."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            play(client)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def hybrid(path: Path, reply: bytes, document: bytes) -> threading.Thread:
    def play(client: socket.socket) -> None:
        assert client.recv(100) == b"CONNECT 1030\n"
        client.sendall(reply)
        if document:  # who was refused may have gone by now
            client.sendall(document)

    return serve_once(path, play)


def test_the_command_reads_a_vm_by_its_hybrid_vsock(tmp_path: Path) -> None:
    path = tmp_path / "kata.hvsock"
    thread = hybrid(path, b"OK 1073741824\n", DOCUMENT)
    out = io.StringIO()
    assert main(["status", "--vm", str(path)], out) == 0
    thread.join(60)
    assert "ready" in out.getvalue()


@pytest.mark.parametrize(("reply", "document", "words"), [
    (b"", b"", "needs nvrc.status.vsock=1030"), (b"OK 1\n", b"", "closed port 1030 silently"), (b"NO\n", b"", "needs nvrc.status.vsock"),
], ids=["nobody listens", "closed at once", "refused"])
def test_a_vm_that_does_not_answer_is_told_with_its_parameter(tmp_path: Path, reply: bytes, document: bytes, words: str) -> None:
    path = tmp_path / "kata.hvsock"
    thread = hybrid(path, reply, document)
    err = io.StringIO()
    assert main(["status", "--vm", str(path)], io.StringIO(), err) == 2
    thread.join(60)
    assert words in err.getvalue()


@pytest.mark.long
def test_a_vm_that_is_not_ready_yet_is_told_so(tmp_path: Path) -> None:
    """Its port is taken before there is anything to say."""
    def play(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"OK 1\n")
        client.recv(1)  # until the host gives up

    path = tmp_path / "kata.hvsock"
    thread = serve_once(path, play)
    with pytest.raises(OSError, match=r"no answer within 1 s: PID 1 answers once GPUs are ready; ask again"):
        ask_vm(str(path), 1030, 1)
    thread.join(60)


@pytest.mark.long
@pytest.mark.parametrize("greeting", [b"OK 1\n", b""], ids=["of-the-document", "of-the-greeting"])
def test_a_vm_that_tells_a_byte_at_a_time_is_given_up(tmp_path: Path, greeting: bytes) -> None:
    """Each byte came in time: 16 MiB of them would take years."""
    given_up: list[bool] = []

    def play(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(greeting)
        try:
            for _ in range(60):  # as many as a greeting may have
                client.sendall(b"O")
                time.sleep(0.1)
        except OSError:
            given_up.append(True)

    path = tmp_path / "vsock"
    thread = serve_once(path, play)
    with pytest.raises(OSError):
        ask_vm(str(path), 1030, 1, 1)
    thread.join(60)
    assert given_up


def test_a_socket_that_is_missing_is_named(tmp_path: Path) -> None:
    err = io.StringIO()
    assert main(["status", "--vm", str(tmp_path / "none")], io.StringIO(), err) == 2
    assert str(tmp_path / "none") in err.getvalue()


@pytest.mark.long
def test_plain_vsock_reaches_a_port_by_its_context_id() -> None:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen(2)
        port = listener.getsockname()[1]
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect((1, port))
            except OSError as err:
                pytest.skip(f"this kernel has no vsock loopback: {err}")
            listener.accept()[0].close()

        def play() -> None:
            with listener.accept()[0] as client:
                client.sendall(DOCUMENT)

        thread = threading.Thread(target=play)
        thread.start()
        assert ask_vm("1", port) == DOCUMENT
        thread.join(60)


@pytest.mark.long
def test_a_context_id_without_a_vm_is_an_error() -> None:
    err = io.StringIO()
    assert main(["status", "--vm", "4294967000"], io.StringIO(), err) == 2
    assert "4294967000" in err.getvalue()
