# SPDX-License-Identifier: Apache-2.0
"""TOML as plain values, from files that others wrote. Whatever is wrong with one is a ValueError.

A whole number has 64 bits, as the language says. Python's reader takes any, and one of 4,000 hexadecimal digits can
then not even be told: printing it is a ValueError of its own, far from here. Loaded only where there is such a file.
"""

from __future__ import annotations

import tomllib

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def parse_toml(text: str) -> dict[str, object]:
    try:
        found: dict[str, object] = tomllib.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err
    waiting: list[object] = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif type(value) is int and not _LEAST <= value <= _MOST:
            raise ValueError("it has a whole number of more than 64 bits")
    return found
