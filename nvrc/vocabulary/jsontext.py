# SPDX-License-Identifier: Apache-2.0
"""Frozen values to JSON text, small enough for PID 1. Reading is another module's work and never done at boot.

Knows dataclasses, enums, tuples, mappings with string keys, strings, numbers, booleans and None. The text is ASCII,
one line per field of the document and per item of its lists, so that `cat` and `diff` are useful on it. What is unset
is null in a document, an empty string too; messages between programs of ours keep that.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Enum, Iterable, Mapping

if TYPE_CHECKING:
    from guest_cdi.lean.light import Callable

    encode_basestring_ascii: Callable[[str], str]

    def make_encoder(*rules: object) -> Callable[[object, int], tuple[str, ...]]: ...
else:
    from _json import encode_basestring_ascii, make_encoder

_BROKEN_LEVELS = 2  # the document, and each list or object directly in it
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def encode(value: object) -> bytes:
    return (_value(value, 0) + "\n").encode("ascii")


def encode_line(value: object) -> bytes:
    """All of it in one line, by what the interpreter has built in."""
    return ("".join(_encode(value, 0)) + "\n").encode("ascii")


def _value(value: object, level: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _value(value.value, level)
    if isinstance(value, str):
        return _string(value) if value else "null"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _number(value)
    return _compound(value, level)


def _compound(value: object, level: int) -> str:
    if isinstance(value, tuple | list):
        # An empty item is an empty item, such as a line of a log.
        items = ('""' if item == "" else _value(item, level + 1) for item in value)
        return _lines("[", items, "]", level)
    value = _plain(value)
    if isinstance(value, Mapping):
        pairs = (f"{_string(str(key))}: {_value(item, level + 1)}" for key, item in value.items())
        return _lines("{", pairs, "}", level)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _plain(value: object) -> object:
    """A record's fields by name; any other value as it is."""
    about = vars(type(value))
    return {name: getattr(value, name) for name in about["__slots__"]} if "__dataclass_fields__" in about else value


def _simpler(value: object) -> object:
    """What the built-in encoder does not know, in words that it does."""
    if isinstance(value, Enum):
        return value.value
    plain = _plain(value)
    if isinstance(plain, Mapping):
        return dict(plain)
    raise TypeError(f"no JSON form for {type(value).__name__}")


# No list of what it is within, as none of our values holds itself; no indentation; no NaN.
_encode = make_encoder(None, _simpler, encode_basestring_ascii, None, ": ", ", ", False, False, False)


def _lines(start: str, items: Iterable[str], end: str, level: int) -> str:
    parts = list(items)
    if not parts or level >= _BROKEN_LEVELS:
        return start + ", ".join(parts) + end
    indent = "\n" + "  " * level
    return start + indent + "  " + f",{indent}  ".join(parts) + indent + end


def _string(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_char, text)) + '"'


def _char(char: str) -> str:
    number = ord(char)
    if short := _SHORT.get(char):
        return short
    if 0x20 <= number < 0x7F:
        return char
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000  # JSON has UTF-16 code units only
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def _number(value: float) -> str:
    if value - value != 0:
        raise ValueError(f"{value} is not a JSON number")
    return float.__repr__(value)
