# SPDX-License-Identifier: Apache-2.0
"""The vsock device beside QEMU, against a front end and a guest of our own: its rings, its streams, its refusals."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.vsock_guest import BUFFER, Guest
from nvrc_lab.devices.vhost_user import F_VERSION_1, PROTOCOL_CONFIG, Request
from nvrc_lab.devices.vsock import HEADER, ROOM, Op, Packet, ProtocolError, Switchboard, pack, parse
from nvrc_lab.devices.vsock_device import Line, VsockDevice

PORT = 1024


@pytest.fixture
def device(tmp_path: Path) -> Iterator[VsockDevice]:
    device = VsockDevice(tmp_path / "vsock.sock")
    yield device
    device.close()
    assert not (tmp_path / "vsock.sock").exists()


@pytest.fixture
def guest(device: VsockDevice) -> Iterator[Guest]:
    guest = Guest(device.path)
    yield guest
    guest.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield pool


def connect(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor, *, room: int = 1 << 16) -> tuple[Line, Packet]:
    waiting = pool.submit(device.connect, PORT, 5)
    asked = guest.accept(room=room)
    return waiting.result(5), asked


def test_the_device_tells_what_it_is(guest: Guest) -> None:
    assert struct.unpack("<Q", guest.ask(Request.GET_FEATURES))[0] & F_VERSION_1
    assert struct.unpack("<Q", guest.ask(Request.GET_PROTOCOL_FEATURES)) == (PROTOCOL_CONFIG,)
    answer = guest.ask(Request.GET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8))
    assert answer[12:] == struct.pack("<Q", 3), "the guest's context id"


def test_data_go_both_ways(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor) -> None:
    guest.start()
    line, asked = connect(device, guest, pool)
    assert asked.guest_port == PORT
    line.sendall(b"question")
    assert guest.receive().data == b"question"
    guest.send(Packet(op=Op.RW, guest_port=PORT, host_port=asked.host_port, data=b"ans"))
    guest.send(Packet(op=Op.RW, guest_port=PORT, host_port=asked.host_port, data=b"wer"))
    assert line.receive_exactly(4, 5) == b"answ"
    assert line.receive_exactly(2, 5) == b"er"
    with pytest.raises(TimeoutError, match="no answer within"):
        line.receive_exactly(1, 0.01)


def test_much_data_arrive_whole_in_pieces_that_fit(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor) -> None:
    """More than the ring has buffers for: what was taken is offered again."""
    guest.start()
    line, _ = connect(device, guest, pool, room=1 << 20)
    data = bytes(range(256)) * 400
    line.sendall(data)
    received = b""
    while len(received) < len(data):
        piece = guest.receive().data
        assert 0 < len(piece) <= BUFFER - HEADER.size
        received += piece
    assert received == data


def test_no_more_is_sent_than_the_guest_has_room_for(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor) -> None:
    guest.start()
    line, asked = connect(device, guest, pool, room=100)
    line.sendall(b"x" * 150)
    assert len(guest.receive().data) == 100
    guest.send(Packet(op=Op.CREDIT_UPDATE, guest_port=PORT, host_port=asked.host_port, room=100, taken=100))
    assert len(guest.receive().data) == 50


def test_the_host_tries_until_somebody_listens(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor) -> None:
    waiting = pool.submit(device.connect, PORT, 5)
    guest.start()
    first = guest.receive()
    guest.send(Packet(op=Op.RST, guest_port=PORT, host_port=first.host_port))
    second = guest.accept()
    assert second.host_port != first.host_port
    assert waiting.result(5)


def test_nobody_listens(device: VsockDevice) -> None:
    with pytest.raises(TimeoutError, match=r"no program in the guest listened on vsock port 1024 within 0\.05 s"):
        device.connect(PORT, 0.05)


@pytest.mark.parametrize("op", [Op.RST, Op.SHUTDOWN])
def test_the_guest_closes(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor, op: Op) -> None:
    guest.start()
    line, asked = connect(device, guest, pool)
    guest.send(Packet(op=Op.RW, guest_port=PORT, host_port=asked.host_port, data=b"last"))
    guest.send(Packet(op=op, guest_port=PORT, host_port=asked.host_port, flags=3))
    assert line.receive_exactly(4, 5) == b"last", "what came before is not lost"
    with pytest.raises(ConnectionResetError):
        line.receive_exactly(1, 5)
    with pytest.raises(ConnectionResetError):
        line.sendall(b"too late")


def test_the_host_closes(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor) -> None:
    guest.start()
    line, asked = connect(device, guest, pool)
    line.close()
    told = guest.receive()
    assert (told.op, told.flags, told.host_port) == (Op.SHUTDOWN, 3, asked.host_port)


def test_a_connection_of_the_guest_is_refused(guest: Guest) -> None:
    guest.start()
    guest.send(Packet(op=Op.REQUEST, guest_port=5000, host_port=1025))
    assert guest.receive() == Packet(op=Op.RST, guest_port=5000, host_port=1025)


def test_the_end_of_the_machine_ends_every_call(device: VsockDevice, guest: Guest, pool: ThreadPoolExecutor) -> None:
    guest.start()
    line, _ = connect(device, guest, pool)
    waiting = pool.submit(line.receive_exactly, 1, 30)
    guest.socket.shutdown(2)
    with pytest.raises(ConnectionResetError):
        waiting.result(5)
    with pytest.raises(ConnectionResetError, match="the machine has ended"):
        device.connect(PORT, 30)


def test_closing_ends_a_connect_that_waits(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    device = VsockDevice(tmp_path / "s")
    waiting = pool.submit(device.connect, PORT, 30)
    device.close()
    with pytest.raises(ConnectionResetError):
        waiting.result(5)


@pytest.mark.parametrize(("data", "flags", "following", "reason"), [
    pytest.param(b"short", 0, 0, "a vsock packet of 5 bytes", id="short"),
    pytest.param(HEADER.pack(3, 2, 1, 1, 99, 1, 5, 0, 0, 0), 0, 0, "promises 99 bytes and has 0", id="promise"),
    pytest.param(b"", 1, 900, "descriptor 900 of a ring of 8", id="descriptor"),
    pytest.param(b"", 1, 1, "a chain of descriptors without an end", id="loop"),
])
def test_what_makes_no_sense_ends_the_device_with_its_reason(  # noqa: PLR0917 - a row has four of them
        device: VsockDevice, guest: Guest, data: bytes, flags: int, following: int, reason: str) -> None:
    guest.start()
    with ThreadPoolExecutor(max_workers=1) as pool:
        line, _ = connect(device, guest, pool)
    guest.send_raw(data, flags=flags, following=following)
    with pytest.raises(ConnectionResetError):
        line.receive_exactly(1, 5)
    assert reason in device.problem
    with pytest.raises(ConnectionResetError, match="the vsock device gave up"):
        device.connect(PORT, 5)


@pytest.mark.parametrize(("request_number", "payload", "reason"), [
    pytest.param(99, b"", "request 99 is not one of this device's", id="unknown"),
    pytest.param(Request.SET_VRING_NUM, struct.pack("<II", 7, 8), "ring 7 of 2", id="ring"),
    pytest.param(Request.SET_VRING_NUM, struct.pack("<II", 0, 0), "a ring of 0", id="empty-ring"),
    pytest.param(Request.SET_MEM_TABLE, struct.pack("<II", 2, 0), "2 regions of memory with 0 descriptors", id="memory"),
    pytest.param(Request.GET_CONFIG, struct.pack("<III", 4, 8, 0), "8 bytes of configuration at 4", id="config"),
    pytest.param(Request.SET_VRING_ADDR, b"abc", "is cut short", id="short"),
])
def test_a_front_end_that_makes_no_sense(device: VsockDevice, guest: Guest, request_number: int, payload: bytes,
                                         reason: str) -> None:
    guest.tell(request_number, payload)
    assert guest.socket.recv(1) == b"", "the device ends the connection"
    with device.changed:
        assert device.changed.wait_for(lambda: bool(device.problem), 5)
    assert reason in device.problem


def test_what_was_read_is_told_before_the_guest_runs_out_of_room() -> None:
    board = Switchboard()
    stream = board.connect(PORT)
    assert board.next_packet(1000).op == Op.REQUEST
    board.hear(Packet(op=Op.RESPONSE, guest_port=PORT, host_port=stream.host_port))
    board.hear(Packet(op=Op.RW, guest_port=PORT, host_port=stream.host_port, data=bytes(ROOM // 2)))
    assert not board.has_packet, "nothing was read yet"
    stream.read(ROOM)
    told = board.next_packet(1000)
    assert (told.op, told.taken) == (Op.CREDIT_UPDATE, ROOM // 2)
    assert not board.has_packet


def test_a_question_for_credit_is_answered() -> None:
    board = Switchboard()
    stream = board.connect(PORT)
    board.next_packet(1000)
    board.hear(Packet(op=Op.CREDIT_REQUEST, guest_port=PORT, host_port=stream.host_port))
    assert board.next_packet(1000).op == Op.CREDIT_UPDATE


def test_packets_survive_the_way_through_bytes() -> None:
    packet = Packet(op=Op.RW, guest_port=7, host_port=8, flags=1, room=9, taken=10, data=b"data")
    raw = pack(packet)
    turned = HEADER.pack(3, 2, 7, 8, *HEADER.unpack_from(raw)[4:]) + raw[HEADER.size:]
    assert parse(turned) == packet
    with pytest.raises(ProtocolError):
        parse(raw[:20])


def test_no_thread_is_left(tmp_path: Path) -> None:
    VsockDevice(tmp_path / "s").close()
    assert not [thread for thread in threading.enumerate() if thread.name == "vsock"]
