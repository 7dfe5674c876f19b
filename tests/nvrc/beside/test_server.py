# SPDX-License-Identifier: Apache-2.0
"""The server against clients that misbehave, and the library's process that hangs, dies and lies. Real sockets, a made clock."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.metrics import value
from fakes.nvml import MockNvml
from nvrc.beside.child import DEADLINE_S, PAUSE_S, NvmlChild, Read
from nvrc.beside.families import render
from nvrc.beside.gpus import of_gpus
from nvrc.beside.main import Following
from nvrc.beside.server import MOST_CONNECTIONS, PATIENCE_S, REQUEST_LIMIT, Server
from nvrc_lab.ground.places import checkout

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Serving:
    def __init__(self, page: bytes) -> None:
        self.clock, self.page = 100.0, page
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server(self.listener, lambda: self.page, lambda: self.clock)
        self.clients: list[socket.socket] = []

    def client(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), timeout=5)
        self.clients.append(client)
        self.turn()
        if data:
            client.sendall(data)
            self.turn()
        return client

    def turn(self, times: int = 5) -> None:
        for _ in range(times):
            self.server.serve(0.01)

    def read(self, client: socket.socket) -> bytes:
        client.settimeout(0.05)
        answer, until = b"", time.monotonic() + 10
        while time.monotonic() < until:
            self.turn(1)
            try:
                piece = client.recv(1 << 16)
            except TimeoutError:
                continue
            except ConnectionResetError:
                return answer
            if not piece:
                return answer
            answer += piece
        raise AssertionError(f"no end after {answer[:200]!r}")


@pytest.fixture
def serving() -> Iterator[Serving]:
    found = Serving(b"x" * 1_000_000)
    yield found
    for client in found.clients:
        client.close()
    found.server.close()


@pytest.mark.long
def test_a_scrape_gets_the_page_and_its_length(serving: Serving) -> None:
    head, _, body = serving.read(serving.client(GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert b"Content-Length: 1000000\r\n" in head
    assert len(body) == 1_000_000
    assert (serving.server.scrapes, serving.server.refused) == (1, 0)


REQUESTS = {
    "another path": (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404"), "a query": (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", b"HTTP/1.1 200"),
    "no such method": (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"), "head only": (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200"),
    "not HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", b""), "two words": (b"GET /metrics\r\n\r\n", b""), "too long": (b"G" * REQUEST_LIMIT, b""),
}


@pytest.mark.long
@pytest.mark.parametrize(("request_bytes", "begins"), REQUESTS.values(), ids=REQUESTS)
def test_requests(serving: Serving, request_bytes: bytes, begins: bytes) -> None:
    answer = serving.read(serving.client(request_bytes))
    assert answer.startswith(begins) if begins else answer == b""
    assert serving.server.refused == (not begins)


@pytest.mark.long
def test_a_scraper_that_never_reads_costs_the_others_nothing(serving: Serving) -> None:
    small, serving.page = serving.page, b"y" * (32 << 20)  # more than the kernel keeps for a connection
    deaf = serving.client(GET)
    serving.page = small
    assert serving.read(serving.client(GET)).endswith(b"x")
    serving.clock += PATIENCE_S
    serving.turn()
    assert serving.server.refused == 1
    assert len(serving.read(deaf)) < 32 << 20


def test_one_that_never_asks_is_closed_in_time(serving: Serving) -> None:
    silent = serving.client()
    serving.clock += PATIENCE_S
    serving.turn()
    assert serving.read(silent) == b""


@pytest.mark.long
def test_the_oldest_gives_way_where_there_are_too_many(serving: Serving) -> None:
    crowd = [serving.client() for _ in range(MOST_CONNECTIONS + 5)]
    assert serving.server.refused == 5
    assert serving.read(crowd[0]) == b""
    assert serving.read(serving.client(GET)).endswith(b"x")


@pytest.mark.long
def test_one_that_gave_way_in_the_same_turn_is_left_alone(serving: Serving) -> None:
    crowd = [serving.client() for _ in range(MOST_CONNECTIONS)]
    another = socket.create_connection(serving.listener.getsockname(), timeout=5)
    serving.clients.append(another)
    crowd[0].sendall(GET)  # the oldest, which has to give way to the one before
    serving.turn()
    assert serving.server.refused == 1
    another.sendall(GET)
    assert serving.read(another).endswith(b"x")


# The library's process -----------------------------------------------------------------------------------------------


def good() -> Read:
    return lambda: {"gpus": [], "pid": os.getpid()}


def hangs() -> Read:
    return lambda: {"gpus": time.sleep(1000)}


def ignores_everything() -> Read:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return hangs()


def crashes() -> Read:
    return lambda: {"gpus": os.kill(os.getpid(), signal.SIGSEGV)}


def lies() -> Read:
    return lambda: {"nothing": 1}


def lists_what_is_no_gpu() -> Read:
    return lambda: {"gpus": ["x"]}


def lists_more_than_a_machine_has() -> Read:
    return lambda: {"gpus": [{"uuid": f"GPU-{number}"} for number in range(65)]}


def names_without_end() -> Read:
    return lambda: {"gpus": [{"name": "x" * 200_000}]}


def nests() -> Read:
    os.write(3, b"[" * 100_000 + b"\n")  # its pipe
    return good()


def cannot_open() -> Read:
    raise RuntimeError("no library")


def floods() -> Read:
    return lambda: {"gpus": ["x" * 100] * 20_000}


def ask(child: NvmlChild, now: float, limit_s: float = 30.0) -> None:
    """Until it has answered or failed. `now` is not 0, when it has told nothing yet."""
    until, before = time.monotonic() + limit_s, (child.told_s, child.failures)
    child.tick(now)
    while time.monotonic() < until and (child.told_s, child.failures) == before:
        if child.fileno() >= 0:
            child.take(now)
        time.sleep(0.01)


@pytest.fixture
def child() -> Iterator[Callable[[Callable[[], Read]], NvmlChild]]:
    made: list[NvmlChild] = []

    def make(read: Callable[[], Read]) -> NvmlChild:
        made.append(NvmlChild(read, 15.0))
        return made[-1]

    yield make
    for one in made:
        one.stop()


MakeChild = Callable[[Callable[[], Read]], NvmlChild]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_machine_without_descriptors_costs_a_try(child: MakeChild) -> None:
    """A container can use them up; the process that serves the other numbers stays."""
    one, (soft, hard) = child(good), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        one.tick(1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (one.failures, one.is_up, one.fileno()) == (1, False, -1)
    ask(one, 1.0 + PAUSE_S)
    assert (one.failures, one.is_up) == (1, True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_one_process_answers_again_and_again(child: MakeChild) -> None:
    one = child(good)
    pids = set()
    for now in (1.0, 16.0, 31.0):
        ask(one, now)
        assert one.latest is not None
        pids.add(one.latest["pid"])
    assert (len(pids), one.is_up, one.failures) == (1, True, 0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("read", [crashes, lies, lists_what_is_no_gpu, lists_more_than_a_machine_has, names_without_end, nests,
                                  cannot_open, floods], ids=lambda read: read.__name__)
def test_one_that_fails_is_replaced_each_time_later(child: MakeChild, read: Callable[[], Read]) -> None:
    one = child(read)
    now = 1.0
    for failures, pause_s in ((1, PAUSE_S), (2, 2 * PAUSE_S), (3, 4 * PAUSE_S)):
        ask(one, now)
        assert (one.failures, one.is_up, one.latest, one.fileno()) == (failures, False, None, -1)
        one.tick(now + pause_s - 0.1)
        assert one.fileno() == -1
        now += pause_s
        until = time.monotonic() + 5
        while one._pid and time.monotonic() < until:
            one._reap()
    assert one.failures == 3


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("read", [hangs, ignores_everything], ids=lambda read: read.__name__)
def test_one_that_hangs_is_killed_and_the_clock_is_all_that_is_waited_for(child: MakeChild, read: Callable[[], Read]) -> None:
    one = child(read)
    one.tick(0.0)
    before = time.monotonic()
    one.tick(DEADLINE_S - 0.1)
    assert one.failures == 0
    one.tick(DEADLINE_S)
    assert (one.failures, one.fileno()) == (1, -1)
    assert time.monotonic() - before < DEADLINE_S / 2


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_an_answer_that_waits_for_an_owner_who_is_late_counts(child: MakeChild) -> None:
    one = child(good)
    one.tick(0.0)
    assert select.select([one.fileno()], [], [], 5)[0]
    pid, one.told_s = one._pid, -1.0
    one.tick(10 * DEADLINE_S)
    assert (one.is_up, one.failures, one.told_s, one._pid) == (True, 0, 10 * DEADLINE_S, pid)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_what_was_told_before_a_hang_stays_and_is_known_to_be_old(child: MakeChild, serving: Serving) -> None:
    asked = []

    def once() -> Read:
        def read() -> dict[str, object]:
            asked.append(1)
            return {"gpus": [] if len(asked) == 1 else time.sleep(1000)}
        return read

    one = child(once)
    following = Following(serving.server, one, lambda: serving.clock)
    following.tick()
    until = time.monotonic() + 5
    while one.latest is None and time.monotonic() < until:
        serving.turn(1)
    assert (one.is_up, one.told_s) == (True, 100.0)
    serving.clock = 115.0
    following.tick()
    assert serving.read(serving.client(GET)).endswith(b"x")
    serving.clock = 126.0
    following.tick()
    assert (one.is_up, one.latest, one.failures) == (False, {"gpus": []}, 1)
    assert serving.read(serving.client(GET)).endswith(b"x")


@pytest.mark.long
def test_the_library_is_read_as_it_answers(nvml_standin: Path, tmp_path: Path) -> None:
    """In a process of its own: the binding keeps the first library that it opens."""
    mock = MockNvml(nvml_standin, tmp_path, 'gpu 0 bus=0000:1a:00.0 serial=1650123 uuid=GPU-11111111-2222-3333-4444-555555555555 '
                    'memory=85899345920 graphics-mhz=345,1980 idle-mhz=345 memory-mhz=2619 power-mw=200000,700000 fabric=completed '
                    'nvlinks=18\n'
                    "gpu 1 bus=0000:1b:00.0\nset gpu=0 draw-mw=412345 celsius=77 busy=93,41 ecc=3,1 used=12884901888 nvlinks-down=2\n"
                    "fail nvmlDeviceGetHandleByIndex gpu=1 15\ncc environment=prod feature=on ready=on gpus=capable")
    code = ("import sys, json; sys.path.insert(0, sys.argv[1]); from guest_cdi.nvml import load; from nvrc.beside.gpus import read_machine; "
            "nvml = load(sys.argv[2]); nvml.nvmlInit(); print(json.dumps(read_machine(nvml)))")
    done = subprocess.run([sys.executable, "-c", code, str(checkout().root), mock.library], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    text = render(of_gpus(json.loads(done.stdout)))
    gpu = {"gpu": "GPU-11111111-2222-3333-4444-555555555555", "bus_id": "0000:1a:00.0", "serial": "1650123"}
    assert value(text, "nvrc_gpu_up", **gpu) == 1
    assert value(text, "nvrc_gpu_clock_hertz", **gpu, clock="graphics") == 345e6
    assert value(text, "nvrc_gpu_clock_hertz", **gpu, clock="memory") == 2619e6
    assert value(text, "nvrc_gpu_fabric_state", **gpu, state="completed") == 1
    assert value(text, "nvrc_gpu_power_watts", **gpu) == 412.345
    assert value(text, "nvrc_gpu_power_limit_watts", **gpu) == 700
    assert value(text, "nvrc_gpu_temperature_celsius", **gpu) == 77
    assert value(text, "nvrc_gpu_utilisation_ratio", **gpu) == 0.93
    assert [value(text, "nvrc_gpu_ecc_errors_total", **gpu, kind=kind) for kind in ("corrected", "uncorrected")] == [3, 1]
    assert [value(text, "nvrc_gpu_memory_bytes", **gpu, kind=kind) for kind in ("total", "used", "free")] == [80 << 30, 12 << 30, 68 << 30]
    assert (value(text, "nvrc_gpu_nvlinks_up", **gpu), value(text, "nvrc_gpu_nvlinks_down", **gpu)) == (16, 2)
    assert value(text, "nvrc_gpu_up", gpu="", bus_id="", serial="") == 0
    assert value(text, "nvrc_gpus_ready") == 1
    assert value(text, "nvrc_cc_feature") == 1
