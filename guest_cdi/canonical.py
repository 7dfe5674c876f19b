# SPDX-License-Identifier: Apache-2.0
"""The YAML that render.py writes, read without a YAML library: loading one costs more than the rest of a start.

Whatever is not exactly of that form (a comment, another indentation, a value that a reader might take for something
else) is not read here at all, but by the library. So nothing that is accepted can be taken for other data than there.
"""

from __future__ import annotations

from guest_cdi.bounds import LONGEST_PLACE
from guest_cdi.lean.light import NamedTuple, TypeAlias
from guest_cdi.lean.yamltext import INDENT, is_plain

Data: TypeAlias = "bool | int | float | str | list[Data] | dict[str, Data] | None"

_DIGITS, _LONGEST = frozenset("0123456789"), 15
_DEEPEST, _MOST_LINES = 32, 50_000


class OtherFormError(Exception):
    """Not what render.py writes."""


class Canonical(NamedTuple):
    """The data, the line of each place, and by place those scalars that are no text, as they stand."""

    data: Data
    lines: dict[str, int]
    bare: dict[str, str]


def read(text: str) -> Canonical | None:
    """None for another form."""
    lines = text.split("\n")
    if lines[0] != "---" or lines[-1] or not 2 < len(lines) < _MOST_LINES:
        return None
    reader = _Reader(lines)
    try:
        data = reader.mapping(0, "", 0)
    except OtherFormError:
        return None
    return Canonical(data, reader.lines, reader.bare) if reader.at == len(lines) - 1 else None


class _Reader:
    def __init__(self, text: list[str]) -> None:
        self.text = text
        self.at = 1
        self.lines: dict[str, int] = {}
        self.bare: dict[str, str] = {}

    def mapping(self, column: int, place: str, depth: int, lead: str = "") -> dict[str, Data]:
        """`lead` stands before the first key instead of the indentation: a sequence's dash."""
        self.lines[place] = self.at + 1
        found: dict[str, Data] = {}
        start = lead or " " * column
        while self.text[self.at].startswith(start):
            key, colon, value = self.text[self.at][len(start):].partition(":")
            if key[:1] in ("", " ", "-"):
                break
            below = f"{place}.{key}" if place else key
            if (not colon or key in found or len(below) > LONGEST_PLACE or not is_plain(key)
                    or (value and value[0] != " ")):
                raise OtherFormError
            self.lines[below] = line = self.at + 1
            self.at += 1
            deeper = (column // INDENT + 1) * INDENT
            found[key] = self._scalar(value[1:], below) if value else self._nested(deeper, below, depth)
            self.lines[below] = line
            start = " " * column
        if not found:
            raise OtherFormError
        return found

    def _nested(self, column: int, place: str, depth: int) -> Data:
        if depth > _DEEPEST:
            raise OtherFormError
        if not self.text[self.at].startswith(" " * column + "- "):
            return self.mapping(column, place, depth + 1)
        self.lines[place] = self.at + 1
        return self._sequence(column, place, depth)

    def _sequence(self, column: int, place: str, depth: int) -> list[Data]:
        found: list[Data] = []
        dash = " " * column + "- "
        while self.text[self.at].startswith(dash):
            here, rest = f"{place}[{len(found)}]", self.text[self.at][len(dash):]
            if rest[:1] != '"' and (rest[-1:] == ":" or ": " in rest):
                found.append(self.mapping(column + 2, here, depth + 1, dash))
                continue
            self.lines[here] = self.at + 1
            self.at += 1
            found.append(self._scalar(rest, here))
        return found

    def _scalar(self, text: str, place: str) -> Data:
        if is_plain(text):
            return text
        if text[:1] == '"' and len(text) > 1 and text[-1] == '"':
            inner = text[1:-1]
            if inner.isprintable() and inner.isascii() and '"' not in inner and "\\" not in inner:
                return inner
        elif _DIGITS.issuperset(text) and (text == "0" or text[:1] not in ("", "0")) and len(text) <= _LONGEST:
            self.bare[place] = text
            return int(text)
        elif text in ("true", "false"):
            self.bare[place] = text
            return text == "true"
        raise OtherFormError
