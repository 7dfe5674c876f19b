# SPDX-License-Identifier: Apache-2.0
"""ttRPC, the protocol between Kata's runtime and its agent (containerd/ttrpc, PROTOCOL.md): one call at a time.

A message is ten bytes of header and a protobuf; a request names service and method and carries the encoded argument.
"""

from __future__ import annotations

import struct
from typing import Protocol

from nvrc_lab.agent.protobuf import WireError, bytes_of, decode, encode, number_of, text_of

HEADER = struct.Struct(">IIBB")
REQUEST, RESPONSE = 1, 2
MAX_MESSAGE = 4 << 20
SLACK_S = 5.0  # the agent's own deadline is the call's; its answer may take a little longer


class RpcError(Exception):
    """The agent's refusal: a status of google.rpc.Code, and its reason."""

    def __init__(self, method: str, code: int, reason: str) -> None:
        super().__init__(f"{method}: {reason} (code {code})")
        self.method, self.code, self.reason = method, code, reason


class Transport(Protocol):
    def sendall(self, data: bytes) -> None: ...
    def receive_exactly(self, count: int, limit_s: float) -> bytes: ...


def pack_request(stream: int, service: str, method: str, payload: bytes, limit_s: float) -> bytes:
    body = encode((1, service), (2, method), (3, payload), (4, int(limit_s * 1e9)))
    return HEADER.pack(len(body), stream, REQUEST, 0) + body


def read_response(method: str, body: bytes) -> bytes:
    fields = decode(body)
    status = decode(bytes_of(fields, 1))
    code = number_of(status, 1)
    if code:
        raise RpcError(method, code, text_of(status, 2))
    return bytes_of(fields, 2)


class Client:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stream = -1

    def call(self, service: str, method: str, payload: bytes, limit_s: float) -> bytes:
        """The answer's payload. A client's streams have odd numbers; the answer to a call given up is passed over."""
        self._stream += 2
        self._transport.sendall(pack_request(self._stream, service, method, payload, limit_s))
        while True:
            size, stream, kind, _flags = HEADER.unpack(
                self._transport.receive_exactly(HEADER.size, limit_s + SLACK_S))
            if kind != RESPONSE or size > MAX_MESSAGE:
                raise WireError(f"{method}: a message of type {kind} with {size} bytes is not an answer")
            body = self._transport.receive_exactly(size, limit_s + SLACK_S)
            if stream == self._stream:
                return read_response(method, body)
