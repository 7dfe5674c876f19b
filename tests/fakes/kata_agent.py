# SPDX-License-Identifier: Apache-2.0
"""An agent at the other end of a ttRPC connection: answers by a table and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from nvrc_lab.agent.protobuf import Fields, decode, encode, number_of, text_of
from nvrc_lab.agent.ttrpc import HEADER, RESPONSE

Answer = bytes | tuple[int, str] | Callable[[Fields], "bytes | tuple[int, str]"]


class Asked(NamedTuple):
    service: str
    method: str
    payload: Fields


class FakeAgent:
    """A transport. An answer is a payload, or a code with a reason; without one in the table it is an empty payload."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = dict(answers)
        self._ready = b""
        self.asked: list[Asked] = []

    @property
    def methods(self) -> list[str]:
        return [one.method for one in self.asked]

    def payload(self, method: str) -> Fields:
        return next(one.payload for one in self.asked if one.method == method)

    def sendall(self, data: bytes) -> None:
        size, stream, kind, flags = HEADER.unpack_from(data)
        assert (kind, flags, len(data)) == (1, 0, HEADER.size + size)
        fields = decode(data[HEADER.size:])
        assert number_of(fields, 4) > 0, "every call has a deadline"
        payload = fields.get(3, (b"",))[-1]
        assert isinstance(payload, bytes)
        asked = Asked(text_of(fields, 1), text_of(fields, 2), decode(payload))
        self.asked.append(asked)
        self.answer(stream, asked)

    def answer(self, stream: int, asked: Asked) -> None:
        answer = self._answers.get(asked.method, b"")
        told = answer(asked.payload) if callable(answer) else answer
        self.put(stream, encode((2, told)) if isinstance(told, bytes) else encode((1, encode((1, told[0]), (2, told[1])))))

    def put(self, stream: int, body: bytes, kind: int = RESPONSE) -> None:
        self._ready += HEADER.pack(len(body), stream, kind, 0) + body

    def receive_exactly(self, count: int, limit_s: float) -> bytes:
        if len(self._ready) < count:
            raise TimeoutError(f"no answer within {limit_s:g} s")
        data, self._ready = self._ready[:count], self._ready[count:]
        return data
