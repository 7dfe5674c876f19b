# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers on the wire (protobuf.dev, "Encoding"): fields as numbers and values, without any schema. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

Value = int | str | bytes
Fields = Mapping[int, tuple[int | bytes, ...]]
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}
_MOST_VARINT = 10


class WireError(ValueError):
    """Bytes that are no message."""


def encode(*fields: tuple[int, Value]) -> bytes:
    """A message; an embedded one is a value of bytes. Fields without content are left out, as in proto3."""
    return b"".join(_encode(number, value) for number, value in fields if value not in (0, "", b""))


def repeat(number: int, values: Iterable[Value]) -> bytes:
    """The elements of a repeated field, of which one may be without content."""
    return b"".join(_encode(number, value) for value in values)


def _encode(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | LENGTH) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def decode(data: bytes) -> Fields:
    """Every field's values in the order in which they came."""
    found: dict[int, tuple[int | bytes, ...]] = {}
    for number, value in _walk(data):
        found[number] = (*found.get(number, ()), value)
    return found


def _walk(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == LENGTH:
            size, at = _read_varint(data, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise WireError(f"field {number} has the unknown wire type {kind}")
        if at + size > len(data):
            raise WireError(f"field {number} is cut short")
        yield number, data[at:at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at:at + _MOST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise WireError("a number without an end")


def number_of(fields: Fields, number: int) -> int:
    """A varint; the last one counts, and 0 stands for none. An int32 below zero is told as such."""
    value = fields.get(number, (0,))[-1]
    if not isinstance(value, int):
        raise WireError(f"field {number} is not a number")
    return value - (1 << 64) if value >> 63 else value


def bytes_of(fields: Fields, number: int) -> bytes:
    value = fields.get(number, (b"",))[-1]
    if not isinstance(value, bytes):
        raise WireError(f"field {number} is a number")
    return value


def text_of(fields: Fields, number: int) -> str:
    return bytes_of(fields, number).decode("utf-8", "backslashreplace")
