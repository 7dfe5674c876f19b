# SPDX-License-Identifier: Apache-2.0
"""TOML as plain values, from files that others wrote. Whatever is wrong with one is a ValueError.

A whole number has 64 bits, as the language says. Python's reader takes any, and one of 4,000 hexadecimal digits can
then not even be told: printing it is a ValueError of its own, far from here. It also takes a key of any number of
parts, in time that grows with their square: 20,000 take half a minute. Loaded only where there is such a file.
"""

from __future__ import annotations

import re
import tomllib

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_MOST_PARTS = 128
_DEEPEST = 128  # tables within tables of keys of many parts are deeper than any reader of them calls itself
_PART = r"""[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'"""
_DOTTED = re.compile(rf"(?<![A-Za-z0-9_-])(?:(?>{_PART})[ \t]*+\.[ \t]*+)++")


def parse_toml(text: str) -> dict[str, object]:
    if text.count(".") >= _MOST_PARTS and any(_has_many_parts(found[0]) for found in _DOTTED.finditer(text)):
        raise ValueError(f"it has a key of more than {_MOST_PARTS} parts")
    try:
        found: dict[str, object] = tomllib.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err
    waiting: list[tuple[object, int]] = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(value, dict):
            waiting += ((part, depth + 1) for part in value.values())
        elif isinstance(value, list):
            waiting += ((part, depth + 1) for part in value)
        elif type(value) is int and not _LEAST <= value <= _MOST:
            raise ValueError("it has a whole number of more than 64 bits")
    return found


def _has_many_parts(dotted: str) -> bool:
    """`dotted`: a key but for its last part."""
    return dotted.count(".") >= _MOST_PARTS and len(re.findall(_PART, dotted)) >= _MOST_PARTS
