# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers and ttRPC on the wire, against bytes that other implementations write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kata_agent import FakeAgent
from nvrc_lab.agent.protobuf import WireError, bytes_of, decode, encode, number_of, repeat, text_of
from nvrc_lab.agent.ttrpc import Client, RpcError, pack_request


@pytest.mark.parametrize(("message", "raw"), [
    pytest.param(encode((1, 150)), "089601", id="varint-of-the-documentation"),
    pytest.param(encode((2, "testing")), "120774657374696e67", id="text-of-the-documentation"),
    pytest.param(encode((3, encode((1, 150)))), "1a03089601", id="embedded-of-the-documentation"),
    pytest.param(encode((1, -1)), "08ffffffffffffffffff01", id="below-zero"),
    pytest.param(encode((16, 1)), "800101", id="field-number-of-two-bytes"),
    pytest.param(encode((1, 0), (2, ""), (3, b"")), "", id="nothing-is-left-out"),
    pytest.param(repeat(4, ["a", "", "b"]), "22016122002201" + "62", id="repeated-keeps-the-empty"),
])
def test_messages_are_what_others_write(message: bytes, raw: str) -> None:
    assert message.hex() == raw


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.one_of(st.integers(1, (1 << 64) - 1), st.binary(min_size=1)))))
def test_what_was_written_is_read(fields: list[tuple[int, int | bytes]]) -> None:
    found = decode(encode(*fields))
    assert {number: [value for given, value in fields if given == number] for number, _ in fields} == {
        number: list(values) for number, values in found.items()}


@pytest.mark.parametrize(("raw", "reason"), [
    pytest.param("08", "a number without an end", id="no-number"),
    pytest.param("08" + "ff" * 11, "a number without an end", id="endless"),
    pytest.param("1205616263", "field 2 is cut short", id="short-text"),
    pytest.param("0d0000", "field 1 is cut short", id="short-fixed"),
    pytest.param("0b", "field 1 has the unknown wire type 3", id="group"),
])
def test_what_is_no_message_says_why(raw: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(bytes.fromhex(raw))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    try:
        decode(raw)
    except WireError:
        pass


def test_fields_are_read_by_kind() -> None:
    fields = decode(encode((1, 7), (1, 8), (2, "text"), (3, -5)))
    assert (number_of(fields, 1), text_of(fields, 2), number_of(fields, 3), number_of(fields, 9)) == (8, "text", -5, 0)
    with pytest.raises(WireError, match="field 2 is not a number"):
        number_of(fields, 2)
    with pytest.raises(WireError, match="field 1 is a number"):
        bytes_of(fields, 1)


def test_a_request_has_the_ten_bytes_and_the_fields_of_ttrpc() -> None:
    raw = pack_request(3, "grpc.Health", "Check", b"\x08\x01", 2.0)
    assert raw[:10].hex() == f"{len(raw) - 10:08x}" + "00000003" + "01" + "00"
    assert decode(raw[10:]) == {1: (b"grpc.Health",), 2: (b"Check",), 3: (b"\x08\x01",), 4: (2_000_000_000,)}


def test_streams_have_odd_numbers_and_answers_reach_their_calls() -> None:
    agent = FakeAgent({"Check": b"\x08\x01"})
    client = Client(agent)
    assert [client.call("grpc.Health", "Check", b"", 1) for _ in range(3)] == [b"\x08\x01"] * 3
    agent.put(1, encode((2, b"late")))
    assert client.call("grpc.Health", "Check", b"", 1) == b"\x08\x01", "the answer to a call given up is passed over"


def test_a_refusal_carries_code_and_reason() -> None:
    client = Client(FakeAgent({"CreateContainer": (13, "no such device")}))
    with pytest.raises(RpcError, match=r"CreateContainer: no such device \(code 13\)") as told:
        client.call("grpc.AgentService", "CreateContainer", b"", 1)
    assert (told.value.code, told.value.reason) == (13, "no such device")


@pytest.mark.parametrize(("kind", "size"), [pytest.param(1, 0, id="a-request"), pytest.param(2, (4 << 20) + 1, id="too-long")])
def test_what_is_no_answer_ends_the_call(kind: int, size: int) -> None:
    agent = FakeAgent({})
    agent.put(1, b"\0" * size, kind)
    with pytest.raises(WireError, match=f"Check: a message of type {kind} with {size} bytes is not an answer"):
        Client(agent).call("grpc.Health", "Check", b"", 1)
