# SPDX-License-Identifier: Apache-2.0
"""A TOML file as a frozen dataclass: the form of TOML for nvrc/vocabulary/records.py. Knows no declaration.

No mistake stops the reading: what is wrong with all files is noted, and raised together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from nvrc.vocabulary import records, tomltext
from nvrc.vocabulary.records import FormatError, Parsed, read_record
from nvrc_build.ground.errors import BuildError, reason

T = TypeVar("T")


class Findings:
    """What is wrong, in the order it was met. Raised together, once everything has been read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        self.lines.append(f"{where}: {what}")

    def raise_if_any(self, what: str) -> None:
        if self.lines:
            count = f"{len(self.lines)} mistake{'s' if len(self.lines) > 1 else ''}"
            raise BuildError(f"{what}: {count}", findings=tuple(self.lines))


class TomlForm(Parsed):
    by_hand = True
    words: Mapping[object, str] = {**Parsed.words, str: "text", int: "a number", dict: "a table"}

    def __init__(self, where: str) -> None:
        self.where = where

    def place(self, path: records.Path, node: object) -> str:
        """slices/one.toml [[take]] 2 paths: as the file spells it. The number of a plain item is left out."""
        words = [self.where]
        for number, part in enumerate(path, start=1):
            is_table = isinstance(node, dict) or number < len(path) - 1
            if isinstance(part, int):
                words += [str(part + 1)] if isinstance(node, dict) or number < len(path) else []
            else:
                is_list = number < len(path) and isinstance(path[number], int)
                words.append(f"[[{part}]]" if is_list and is_table else part)
        return " ".join(words)


def parse_toml(path: Path, findings: Findings, where: str) -> dict[str, object] | None:
    """The file's tables, or None and what is wrong among the findings."""
    try:
        return tomltext.parse_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        findings.add(where, "does not exist")
    except UnicodeDecodeError as wrong:
        findings.add(where, reason(wrong))
    except (OSError, ValueError) as wrong:
        findings.add(where, str(wrong))
    return None


def read_toml(kind: type[T], path: Path, findings: Findings, where: str,
              given: Mapping[str, object] = MappingProxyType({})) -> T | None:
    """The file as a value, or None and what is wrong among the findings."""
    table = parse_toml(path, findings, where)
    return read_table(kind, table, findings, where, given) if table is not None else None


def read_table(kind: type[T], table: Mapping[str, object], findings: Findings, where: str,
               given: Mapping[str, object]) -> T | None:
    try:
        return read_record(kind, table, TomlForm(where), given)
    except FormatError as wrong:
        findings.lines += wrong.problems
        return None
