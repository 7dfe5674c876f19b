# SPDX-License-Identifier: Apache-2.0
"""JSON text to plain values, by the scanner that the interpreter has built in.

The module `json` puts `re` and `enum` around that scanner, which costs a container hook as much as its own work, and
PID 1 at every boot. Stricter than `json`: the text is UTF-8, and NaN and Infinity, which are no JSON, are refused, as
is a number that is too large to be one (1e999).
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING

if TYPE_CHECKING:
    from guest_cdi.lean.light import Callable

    def make_scanner(context: type) -> Callable[[str, int], tuple[object, int]]: ...
else:
    from _json import make_scanner

_BLANKS = " \t\n\r"


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text[:20]} is out of the range of numbers")
    return number


class _Rules:
    """What the scanner asks its owner for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = staticmethod(_finite), int, staticmethod(_refuse)


_scan = make_scanner(_Rules)


def read_json(data: bytes) -> object:
    """The value, or ValueError in words."""
    text = data.decode().lstrip(_BLANKS)
    try:
        value, end = _scan(text, 0)
    except StopIteration as err:
        raise ValueError(f"no JSON value at character {err.value}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if rest := text[end:].strip(_BLANKS):
        raise ValueError(f"more text after the value: {rest[:20]!r}")
    return value
