# SPDX-License-Identifier: Apache-2.0
"""The farewell over a unix socket: what a runtime is told, and what no peer can do to PID 1.

The lab's ttRPC client, which talks to the real kata-agent, asks here; what it makes of the answer is what Kata's does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvrc.machine import vsock
from nvrc.machine.loop import Loop
from nvrc.pid1 import farewell
from nvrc.pid1.farewell import (
    HEADER,
    LARGEST_BODY,
    MOST_ANSWERS,
    MOST_PEERS,
    REQUEST,
    Farewell,
    GarbageError,
    Requests,
)
from nvrc.vocabulary.console import REFUSAL_LIMIT, refusal
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import Trouble
from nvrc_lab.agent.ttrpc import Client, RpcError, pack_request

TEXT = "guest init: E_GPU_ATTACH in step persistenced: 1 of 2 GPUs attached (hint: reset it)"
LIMIT_S = 20.0
GRACE_S = 0.05


def frame(body: bytes = b"body", *, stream: int = 1, kind: int = REQUEST, size: int | None = None) -> bytes:
    return HEADER.pack(len(body) if size is None else size, stream, kind, 0) + body


class Transport:
    """The client's side of a unix socket, for the lab's ttRPC client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sendall = sock.sendall

    def receive_exactly(self, count: int, limit_s: float) -> bytes:
        self.sock.settimeout(limit_s)
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data


class Guest:
    """A farewell that runs on a thread, as PID 1 has it on its main one."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "port")
        self.answers = self.seconds = -1.0
        self._thread: threading.Thread | None = None

    def begin(self, limit_s: float = LIMIT_S, is_hurried: Callable[[], bool] = lambda: False, grace_s: float = GRACE_S) -> Guest:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(MOST_PEERS)
        loop = Loop(time.monotonic)

        def serve() -> None:
            began = time.monotonic()
            self.answers = Farewell(loop, time.monotonic, listener.detach(), TEXT, grace_s).serve(limit_s, is_hurried)
            self.seconds = time.monotonic() - began
            loop.close()

        self._thread = threading.Thread(target=serve)
        self._thread.start()
        return self

    def dial(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.settimeout(LIMIT_S)
        return sock

    def ask(self) -> str:
        with self.dial() as sock, pytest.raises(RpcError) as refused:
            Client(Transport(sock)).call("grpc.Health", "Check", b"", 5)
        assert refused.value.code == 9
        return refused.value.reason

    def join(self) -> Guest:
        assert self._thread is not None
        self._thread.join()
        return self


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    one = Guest(tmp_path)
    yield one
    one.join()


def test_a_runtime_is_told_and_then_it_is_over_soon(guest: Guest) -> None:
    assert guest.begin().ask() == TEXT
    assert guest.join().answers == 1
    assert guest.seconds < LIMIT_S / 2


def test_a_runtime_that_dials_again_is_told_again(guest: Guest) -> None:
    heard: list[str] = []
    guest.begin(is_hurried=lambda: len(heard) == 2, grace_s=LIMIT_S)
    for _ in range(2):
        heard.append(guest.ask())
    guest.dial().close()  # it looks up when something comes
    assert heard == [TEXT, TEXT]
    assert guest.join().answers == 2


@pytest.mark.long
def test_as_long_as_it_stays_it_may_ask(guest: Guest) -> None:
    with guest.begin().dial() as sock:
        client = Client(Transport(sock))
        for _ in range(3):
            time.sleep(1.5 * GRACE_S)
            with pytest.raises(RpcError, match="E_GPU_ATTACH"):
                client.call("grpc.AgentService", "CreateSandbox", b"x" * 100_000, 5)
    assert guest.join().answers == 3


def test_nobody_asks(guest: Guest) -> None:
    assert guest.begin(0.2).join().answers == 0
    assert 0.2 <= guest.seconds < LIMIT_S / 2


def test_somebody_wants_the_machine_to_end(guest: Guest) -> None:
    asked: list[bool] = []
    with guest.begin(is_hurried=lambda: bool(asked)).dial() as sock:
        asked.append(True)
        with contextlib.suppress(BrokenPipeError):  # it may have looked up by the call itself
            sock.sendall(frame())
        guest.join()
    assert guest.seconds < LIMIT_S / 2


REQUEST_BYTES = pack_request(7, "grpc.Health", "Check", b"argument", 5)


def test_a_request_may_come_in_pieces() -> None:
    for at in range(len(REQUEST_BYTES)):
        requests = Requests()
        assert requests.feed(REQUEST_BYTES[:at]) == [], at
        assert requests.feed(REQUEST_BYTES[at:] + REQUEST_BYTES[:at]) == [7], at
        assert requests.feed(REQUEST_BYTES[at:]) == [7], at


def test_a_request_that_is_cut_anywhere_gets_no_answer_and_does_no_harm(guest: Guest) -> None:
    guest.begin()
    for at in range(len(REQUEST_BYTES)):
        with guest.dial() as sock:
            sock.sendall(REQUEST_BYTES[:at])
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b"", at
    assert guest.ask() == TEXT
    assert guest.join().answers == 1


def test_byte_by_byte() -> None:
    requests = Requests()
    streams = [stream for byte in frame(b"", stream=3) + frame(stream=5) for stream in requests.feed(bytes([byte]))]
    assert streams == [3, 5]


@pytest.mark.parametrize(("data", "streams"), [
    pytest.param(frame(stream=1) + frame(stream=3), [1, 3], id="two at once"),
    pytest.param(frame(kind=3) + frame(stream=9), [9], id="data of a stream is passed over"),
    pytest.param(frame(kind=255, stream=2), [], id="a type of some later version"),
    pytest.param(frame(b"", size=0), [1], id="no body"),
    pytest.param(frame(b"", size=LARGEST_BODY), [], id="the largest, which never comes"),
])
def test_frames(data: bytes, streams: list[int]) -> None:
    assert Requests().feed(data) == streams


@pytest.mark.long
@pytest.mark.parametrize("data", [
    pytest.param(frame(b"", size=LARGEST_BODY + 1), id="one byte too large"), pytest.param(frame(b"", size=0xFFFFFFFF), id="huge"),
    pytest.param(frame(kind=2), id="an answer to us"), pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
    pytest.param(b"\xff" * 64, id="all ones")])
def test_garbage_is_hung_up_on(guest: Guest, data: bytes) -> None:
    with pytest.raises(GarbageError):
        Requests().feed(data)
    guest.begin()
    with guest.dial() as sock:
        sock.sendall(data)
        assert sock.recv(1) == b""
    assert guest.ask() == TEXT


def test_random_bytes_never_raise_anything_else() -> None:
    state = 12345
    for _ in range(3000):
        state = (state * 1103515245 + 12345) & 0xFFFFFFFF
        data = struct.pack("<I", state) * (state % 9)
        requests = Requests()
        try:
            requests.feed(b"\0" * (state % 3) + data)
            requests.feed(data)
        except GarbageError:
            pass


def test_many_peers_that_say_nothing_do_not_keep_the_runtime_out(guest: Guest) -> None:
    guest.begin()
    idle = [guest.dial() for _ in range(5 * MOST_PEERS)]
    assert guest.ask() == TEXT
    assert guest.join().answers == 1
    assert guest.seconds < LIMIT_S / 2, "nor the machine up"
    for sock in idle:
        sock.close()


def test_a_peer_that_takes_no_answer_is_dropped(guest: Guest) -> None:
    is_told: list[bool] = []
    guest.begin(is_hurried=lambda: bool(is_told), grace_s=LIMIT_S)
    with guest.dial() as sock:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            for _ in range(10_000):
                sock.sendall(frame(b"", size=0) * 100)
        assert guest.ask() == TEXT
    with guest.dial():  # whose end has the guest look again
        is_told.append(True)
    assert guest.join().answers <= MOST_ANSWERS + 1


@pytest.mark.long
def test_the_longest_peer_cannot_stay_past_the_deadline(guest: Guest) -> None:
    with guest.begin(0.5).dial() as sock:
        sock.sendall(frame())
        guest.join()
    assert guest.answers == 1
    assert guest.seconds < LIMIT_S / 2


@pytest.mark.long
def test_nothing_stays_open(guest: Guest) -> None:
    gc.collect()  # what other tests left may be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    idle = guest.begin(0.3).dial()
    guest.join()
    idle.close()
    assert len(os.listdir("/proc/self/fd")) == before


# The text


def ending(what: str = "it broke", hint: str = "mend it", code: str = "E_MOUNT", step: str = "filesystems") -> Trouble:
    return make_trouble(code, what, hint, step=step)  # type: ignore[arg-type]  # codes of other versions


@pytest.mark.parametrize(("one", "text"), [
    pytest.param(ending(), "guest init: E_MOUNT in step filesystems: it broke (hint: mend it)", id="plain"),
    pytest.param(ending("a\nb\t c"), "guest init: E_MOUNT in step filesystems: a b c (hint: mend it)", id="one line"),
    pytest.param(ending("caf\u00e9 \x1b[0m", "\u2603"), "guest init: E_MOUNT in step filesystems: caf\\xe9 \\x1b[0m (hint: \\u2603)", id="ascii"),
    pytest.param(ending(hint=""), "guest init: E_MOUNT in step filesystems: it broke (hint: check that the kernel has the file system and "
                 "that the mount point exists in the image)", id="the code's own hint"),
    pytest.param(ending(code="E_OTHER", hint=""), "guest init: E_OTHER in step filesystems: it broke", id="no hint at all"),
])
def test_the_line(one: Trouble, text: str) -> None:
    assert refusal(one) == text


@pytest.mark.parametrize("what", ["x" * 5000, "\u2603" * 5000, "\n" * 5000, "", "\\" * 3000])
@pytest.mark.parametrize("hint", ["y" * 5000, "\0" * 500, "short"])
def test_the_line_is_short_printable_and_one(what: str, hint: str) -> None:
    text = refusal(ending(what, hint, code="E" * 300, step="\n" * 300))
    assert len(text) <= REFUSAL_LIMIT
    assert text.isascii()
    assert text.isprintable()


def test_the_cause_is_cut_after_the_advice() -> None:
    text = refusal(ending("GPU 0000:41:00.0 " + "x" * 600, "y" * 2000))
    assert "x" * 600 in text
    assert text.endswith("...)")


def test_a_long_answer_is_whole() -> None:
    """Lengths above 127 take two bytes on the wire."""
    for size in (0, 1, 127, 128, 300, REFUSAL_LIMIT):
        ours, theirs = socket.socketpair()
        ours.sendall(farewell.refuse(1, "z" * size))
        with pytest.raises(RpcError) as refused:
            Client(Transport(theirs)).call("s", "m", b"", 5)
        assert refused.value.reason == "z" * size
        ours.close()
        theirs.close()


def test_a_machine_without_a_device_has_no_port(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        vsock.listen(str(tmp_path / "vsock"), farewell.PORT)
