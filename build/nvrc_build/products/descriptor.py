# SPDX-License-Identifier: Apache-2.0
"""Which requests a kata-agent takes, read from its ELF file without running it.

Generated protobuf code carries the FileDescriptorProto of its .proto file as bytes; descriptor.proto, protobuf's
encoding. Only what leads to the services is read: field 6 of the file, 2 of a service, 2 of a method. Nothing marks
where a descriptor ends, so it ends with the first field that it cannot have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FILES = re.compile(rb"\n([\x0b-\x7f])((?:[!-~]*/)?(?:agent|health)\.proto)\x12")
_SERVICE, _SYNTAX, _LAST, _NAME, _METHOD, _INPUT = 6, 12, 14, 1, 2, 2
_VARINT, _BYTES = 0, 2


def read_requests(agent: bytes) -> tuple[str, ...] | None:
    """The message that each method of the agent's services takes; None when the file does not say."""
    found: set[str] = set()
    has_agent = False
    for match in _FILES.finditer(agent):
        if match[1][0] != len(match[2]):
            continue
        inputs = set(_inputs(agent, match.start()))
        has_agent |= match[2].endswith(b"agent.proto") and bool(inputs)
        found |= inputs
    return tuple(sorted(found)) if has_agent else None


def _inputs(data: bytes, start: int) -> Iterator[str]:
    for number, service in _fields(data, start, len(data)):
        if number != _SERVICE:
            continue
        for kind, method in _fields(service, 0, len(service)):
            if kind != _METHOD:
                continue
            yield from (value.decode("ascii", "replace").rpartition(".")[2]
                        for field, value in _fields(method, 0, len(method)) if field == _INPUT and value[:1] == b".")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each field that has a length, up to the first thing that is not one of a descriptor's."""
    while at < end:
        key, at = data[at], at + 1
        number, kind = key >> 3, key & 7
        if not 1 <= number <= _LAST or kind not in (_VARINT, _BYTES):
            return
        size, at = _varint(data, at, end)
        if kind == _VARINT:
            continue
        if size > end - at:
            return
        yield number, data[at:at + size]
        at += size
        if number == _SYNTAX and data[at - size:at].startswith(b"proto"):
            return


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and where the next thing is; more than can be there when it does not end in time."""
    value = shift = 0
    while at < end and shift < 35:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    return end, at
