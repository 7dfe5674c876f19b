# SPDX-License-Identifier: Apache-2.0
"""Files that the commands are given: a path, or `-` for standard input. Problems name the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from nvrc.jsonread import FormatError

T = TypeVar("T")
STDIN = "-"
LIMIT = 64 << 20


def read_input(path: str, stdin: BinaryIO | None = None) -> bytes:
    if path == STDIN:
        return (stdin or sys.stdin.buffer).read(LIMIT)
    with open(path, "rb") as file:
        return file.read(LIMIT)


def read_as(reader: Callable[[bytes], T], path: str, data: bytes) -> T:
    try:
        return reader(data)
    except FormatError as err:
        raise FormatError(tuple(f"{path}: {problem}" for problem in err.problems)) from err
