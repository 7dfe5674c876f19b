# SPDX-License-Identifier: Apache-2.0
"""The vfio-user server as a client meets it: over its socket, and with messages that make no sense."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvrc_lab.devices.vfio_user import (
    CONFIG_REGION,
    ERROR,
    HEADER,
    MAX_MESSAGE,
    MAX_TRANSFER,
    NO_REPLY,
    REGION,
    REPLY,
    Command,
    Server,
    answer,
    serve,
)
from nvrc_lab.devices.virtual_function import VirtualFunction, parse_function
from nvrc_lab.ground.errors import LabError

GPU = "0000:40:00.0/10de:2330/030200/attach_ms=20/minor=0"


def gpu() -> VirtualFunction:
    return VirtualFunction(parse_function(GPU))


def message(command: int, body: bytes, flags: int = 0, number: int = 7) -> bytes:
    return HEADER.pack(number, command, HEADER.size + len(body), flags, 0) + body


def ask(function: VirtualFunction, command: int, body: bytes) -> tuple[int, bytes]:
    reply = answer(function, message(command, body))
    number, echoed, size, flags, error = HEADER.unpack_from(reply)
    assert (number, echoed, size) == (7, command, len(reply))
    assert flags == (REPLY | ERROR if error else REPLY)
    return error, reply[HEADER.size:]


def read_region(function: VirtualFunction, region: int, at: int, count: int) -> tuple[int, bytes]:
    error, body = ask(function, Command.REGION_READ, REGION.pack(at, region, count))
    return error, body[REGION.size:]


@pytest.mark.parametrize(("region", "at", "count", "data"), [
    (CONFIG_REGION, 0, 4, bytes.fromhex("de103023")),
    (CONFIG_REGION, 9, 3, bytes.fromhex("000203")),
    (0, 0x0, 4, bytes.fromhex("a1000018")),
    (0, 0xA00, 4, bytes.fromhex("00100a18")),
    (0, 0xA01, 2, bytes.fromhex("100a")),
    (2, 0x1000, 8, bytes(8)),
])
def test_reads(region: int, at: int, count: int, data: bytes) -> None:
    assert read_region(gpu(), region, at, count) == (0, data)


@pytest.mark.parametrize(("command", "body"), [
    (Command.REGION_READ, REGION.pack(4095, CONFIG_REGION, 2)),
    (Command.REGION_READ, REGION.pack(0, 99, 4)),
    (Command.REGION_READ, REGION.pack(0, 1, 4)),
    (Command.REGION_READ, REGION.pack(0, 0, MAX_TRANSFER + 1)),
    (Command.REGION_READ, REGION.pack(2**64 - 4, 0, 4)),
    (Command.REGION_READ, b"short"),
    (Command.REGION_WRITE, REGION.pack(0, CONFIG_REGION, 4) + b"ab"),
    (Command.REGION_INFO, struct.pack("<III", 32, 0, 9)),
    (Command.IRQ_INFO, struct.pack("<III", 16, 0, 5)),
    (Command.VERSION, struct.pack("<HH", 1, 0)),
    (Command.VERSION, b""),
])
def test_nonsense_is_refused(command: Command, body: bytes) -> None:
    assert ask(gpu(), command, body) == (errno.EINVAL, b"")


def test_unknown_commands_are_refused_as_such() -> None:
    assert ask(gpu(), 999, b"")[0] == errno.EOPNOTSUPP


def test_a_posted_write_counts_and_has_no_reply() -> None:
    function = gpu()
    body = REGION.pack(0x1C0, 0, 4) + b"abcd"
    assert answer(function, message(Command.REGION_WRITE, body, NO_REPLY)) == b""
    assert read_region(function, 0, 0x1C0, 4) == (0, b"abcd")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, 2**16 - 1) | st.sampled_from(Command), st.binary(max_size=64), st.integers(0, 2**32 - 1))
def test_any_message_has_one_well_formed_reply_or_none(command: int, body: bytes, flags: int) -> None:
    function = gpu()
    reply = answer(function, message(command, body, flags))
    assert (reply == b"") == bool(flags & NO_REPLY)
    if reply:
        assert HEADER.unpack_from(reply)[2] == len(reply)
    assert function.read(0, 4) == bytes.fromhex("de103023")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve({"0000:40:00.0": gpu()}, tmp_path) as servers:
        yield servers["0000:40:00.0"]


def connect(server: Server) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(server.path))
    return client


def talk(client: socket.socket, command: int, body: bytes) -> bytes:
    client.sendall(message(command, body))
    head = client.recv(HEADER.size, socket.MSG_WAITALL)
    return head + client.recv(HEADER.unpack(head)[2] - HEADER.size, socket.MSG_WAITALL) if head else b""


def test_it_talks_over_its_socket_in_pieces(server: Server) -> None:
    with connect(server) as client:
        whole = message(Command.REGION_READ, REGION.pack(0, CONFIG_REGION, 4))
        for byte in whole:
            client.sendall(bytes([byte]))
        reply = client.recv(HEADER.size + REGION.size + 4, socket.MSG_WAITALL)
    assert reply.endswith(bytes.fromhex("de103023"))


@pytest.mark.parametrize("size", [0, HEADER.size - 1, MAX_MESSAGE + 1, 2**32 - 1])
def test_a_false_length_ends_the_connection_and_not_the_server(server: Server, size: int) -> None:
    with connect(server) as client:
        client.sendall(HEADER.pack(1, Command.VERSION, size, 0, 0))
        assert client.recv(1) == b""
    with connect(server) as client:
        assert talk(client, Command.VERSION, struct.pack("<HH", 0, 1))


def test_closing_drops_the_client_and_takes_the_socket_away(server: Server) -> None:
    with connect(server) as client:
        assert talk(client, Command.DEVICE_INFO, b"\0" * 16)
        server.close()
        assert client.recv(1) == b""
    assert not server.path.exists()


def test_a_socket_path_that_is_too_long_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="TMPDIR"):
        Server(gpu(), tmp_path / ("x" * 120))
