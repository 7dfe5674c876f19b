# SPDX-License-Identifier: Apache-2.0
"""A TOML table read key by key into typed values; every mistake is noted with file and key, none stops the reading.

A key that nobody asked for is a mistake too. Knows no declaration; manifest.py says which keys there are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from nvrc_build.ground.errors import BuildError

type_names: Mapping[type, str] = {str: "text", int: "a number", bool: "true or false", list: "a list", dict: "a table"}


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


class Table:
    """One table of a file. Asking for a key marks it as known; `close` notes the ones nobody asked for."""

    def __init__(self, values: Mapping[str, object], where: str, findings: Findings) -> None:
        self._values = values
        self._asked: set[str] = set()
        self.where = where
        self.findings = findings

    def note(self, key: str, what: str) -> None:
        self.findings.add(f"{self.where} {key}".rstrip(), what)

    def _get(self, key: str, kind: type, required: bool) -> object:
        self._asked.add(key)
        value = self._values.get(key)
        if value is None:
            if required:
                self.note(key, "is missing")
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.note(key, f"must be {type_names[kind]}, not {value!r}")
            return None
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, str, default is None)
        if isinstance(value, str):
            if not value.strip():
                self.note(key, "is empty")
            return value
        return default or ""

    def has(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._values

    def raw_text(self, key: str) -> str:
        """Text that may be empty: the content of a file."""
        value = self._get(key, str, True)
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: int | None = None) -> int:
        value = self._get(key, int, default is None)
        return value if isinstance(value, int) else default or 0

    def flag(self, key: str) -> bool:
        return self._get(key, bool, False) is True

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        value = self._get(key, list, required)
        if not isinstance(value, list):
            return ()
        for item in value:
            if not isinstance(item, str) or not item.strip():
                self.note(key, f"must hold texts only, not {item!r}")
        found = tuple(item for item in value if isinstance(item, str))
        for twice in sorted({item for item in found if found.count(item) > 1}):
            self.note(key, f"names {twice!r} twice")
        return found

    def mode(self, key: str, default: int) -> int:
        text = self.text(key, f"{default:04o}")
        try:
            return int(text, 8)
        except ValueError:
            self.note(key, f"must be an octal mode in quotes, such as \"0644\", not {text!r}")
            return default

    def tables(self, key: str) -> tuple[Table, ...]:
        value = self._get(key, list, False)
        if not isinstance(value, list):
            return ()
        found = []
        for number, item in enumerate(value, start=1):
            if isinstance(item, dict):
                found.append(Table(item, f"{self.where} [[{key}]] {number}", self.findings))
            else:
                self.note(key, f"must hold tables only, not {item!r}")
        return tuple(found)

    def table(self, key: str) -> Table | None:
        value = self._get(key, dict, False)
        return Table(value, f"{self.where} [{key}]", self.findings) if isinstance(value, dict) else None

    def close(self) -> None:
        for key in self._values:
            if key not in self._asked:
                self.note(key, f"is unknown; known here: {', '.join(sorted(self._asked))}")


def read_toml(path: Path, findings: Findings, where: str) -> Table:
    """The file's table. One that cannot be read is one mistake; what it lacks for that reason is not noted again."""
    try:
        return Table(tomllib.loads(path.read_text(encoding="utf-8")), where, findings)
    except FileNotFoundError:
        findings.add(where, "does not exist")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        findings.add(where, str(wrong))
    return Table({}, where, Findings())
