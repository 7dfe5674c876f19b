# SPDX-License-Identifier: Apache-2.0
"""TOML as people write policies: strings without escapes, whole numbers, true and false, lists, tables on one line.

PID 1 reads its policy at every boot, and Python's reader costs three milliseconds before it reads a byte: regular
expressions and what they import. What is not plain is no mistake, and no value either: then the other one reads it all.
What this one does read it reads as that one does (tests/nvrc/vocabulary/test_plaintoml.py, and the fuzzer), within its
bounds, too: a key of more than eight parts is not plain.
"""

from __future__ import annotations

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_DIGITS, _DEEPEST = 18, 8

Table = dict[str, object]


class NotPlainError(Exception):
    """Python's reader is to read it, and to say what is wrong with it if anything is."""


def read_toml(text: str) -> Table:
    """Any TOML; ValueError for what is none."""
    found = read_plain(text)
    if found is None:
        from nvrc.vocabulary.tomltext import parse_toml

        found = parse_toml(text)
    return found


def read_plain(text: str) -> Table | None:
    """None: it is not plain."""
    if not (text.isascii() and text.replace("\n", "").replace("\t", "").isprintable()):
        return None
    try:
        return _Reader(text).read()
    except NotPlainError:
        return None


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._sections: set[int] = set()  # tables that a header made, by identity: headers may put more into them
        self._dotted: set[int] = set()    # those that a dotted key made: later keys may

    def read(self) -> Table:
        root: Table = {}
        table = root
        self._skip_lines()
        while self._peek():
            if self._take("["):
                *above, last = self._names()
                outer = self._enter(root, above, self._sections)
                if last in outer:
                    raise NotPlainError
                table = self._enter(outer, [last], self._sections)
                self._expect("]")
                self._dotted.clear()
            else:
                self._pair(table)
            self._skip_spaces()
            if self._peek() not in ("#", "\n", ""):
                raise NotPlainError
            self._skip_lines()
        return root

    def _enter(self, table: Table, names: list[str], made: set[int]) -> Table:
        """The table of that path; what is missing of it is made, what is there must have been made so."""
        for name in names:
            if name not in table:
                new: Table = {}
                table[name] = new
                made.add(id(new))
            inner = table[name]
            if not isinstance(inner, dict) or id(inner) not in made:
                raise NotPlainError
            table = inner
        return table

    def _pair(self, table: Table) -> None:
        *above, last = self._names()
        self._expect("=")
        self._skip_spaces()
        table = self._enter(table, above, self._dotted)
        if last in table:
            raise NotPlainError
        table[last] = self._value()

    def _names(self) -> list[str]:
        names = [self._name()]
        while self._take("."):
            if len(names) >= _DEEPEST:
                raise NotPlainError
            names.append(self._name())
        return names

    def _name(self) -> str:
        self._skip_spaces()
        name = self._string() if self._peek() in ('"', "'") else self._run(_BARE)
        self._skip_spaces()
        return name

    def _value(self) -> object:
        if self._peek() in ('"', "'"):
            return self._string()
        if self._depth >= _DEEPEST:
            raise NotPlainError
        self._depth += 1
        value = self._list() if self._take("[") else self._inline() if self._take("{") else self._word()
        self._depth -= 1
        return value

    def _string(self) -> str:
        quote, begin = self._text[self._at], self._at + 1
        end = self._text.find(quote, begin)
        found = self._text[begin:end]
        if end < 0 or "\n" in found or (quote == '"' and "\\" in found):
            raise NotPlainError
        self._at = end + 1
        if not found and self._peek() == quote:  # three of them begin text of many lines
            raise NotPlainError
        return found

    def _word(self) -> bool | int:
        word = self._run(_BARE)
        if word in ("true", "false"):
            return word == "true"
        digits = word.removeprefix("-")
        if not digits.isdecimal() or len(digits) > _DIGITS or (digits[0] == "0" and digits != "0"):
            raise NotPlainError
        return int(word)

    def _list(self) -> list[object]:
        items: list[object] = []
        self._skip_lines()
        while not self._take("]"):
            items.append(self._value())
            self._skip_lines()
            if self._peek() != "]":
                self._expect(",")
                self._skip_lines()
        return items

    def _inline(self) -> Table:
        table: Table = {}
        self._skip_spaces()
        if self._take("}"):
            return table
        while True:
            self._pair(table)
            self._skip_spaces()
            if self._take("}"):
                return table
            self._expect(",")

    def _skip_spaces(self) -> None:
        while self._peek() in (" ", "\t"):
            self._at += 1

    def _skip_lines(self) -> None:
        """With their ends, and comments."""
        while (char := self._peek()) and char in " \t\n#":
            if char == "#":
                end = self._text.find("\n", self._at)
                self._at = end if end >= 0 else len(self._text)
            else:
                self._at += 1

    def _peek(self) -> str:
        return self._text[self._at:self._at + 1]

    def _take(self, char: str) -> bool:
        is_next = self._peek() == char
        self._at += is_next
        return is_next

    def _expect(self, char: str) -> None:
        if not self._take(char):
            raise NotPlainError

    def _run(self, chars: frozenset[str]) -> str:
        begin = self._at
        while self._peek() in chars:
            self._at += 1
        if begin == self._at:
            raise NotPlainError
        return self._text[begin:self._at]
