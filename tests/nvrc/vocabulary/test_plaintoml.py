# SPDX-License-Identifier: Apache-2.0
"""The reader of plain TOML against Python's: what it reads is the same, and what it does not read is left to the other."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

import pytest

from nvrc.vocabulary.plaintoml import read_plain, read_toml

ROOT = Path(__file__).parents[3]
POLICIES = sorted((ROOT / "rootfs/files").glob("policy*.toml"))

PLAIN = {
    "nothing": "",
    "comments": "# one\n\n  # two\t\n",
    "every value": "a = 'x'\nb = \"y\"\nc = true\nd = false\ne = 0\nf = -15\ng = []\nh = {}\n",
    "names": "a-b_1.\"c.d\" . 'e' = 1\n\"\" = 2\n3 = 4\n",
    "a list over lines": "a = [ # one\n  \"x\", # two\n\n  \"y\",\n]\n",
    "lists in lists": "a = [[1], [], [\"x\", [true]]]\n",
    "tables": "a = 1\n[ b ]\nc = 1\n[b.d]\ne = 1\n[f.g]\n[f.h]\n",
    "a dotted key twice": "a.b.c = 1\na.b.d = 2\na.e = 3\n",
    "as many parts as may be": "a" + ".a" * 7 + " = 1\n[b" + ".b" * 7 + "]\n",
    "a table on one line": "a = { b = 1, c.d = [2], c.e = { f = \"x\" } }\n",
    "no line end": "a = 1",
    "a tab in a string": "a = \"x\ty\" # z",
}
# Those that are TOML and those that are not: it says nothing of them.
LEFT = {
    "an escape": r'a = "x\n"', "text of many lines": 'a = """x"""', "literal text of many lines": "a = '''x'''",
    "a number with a point": "a = 1.5", "a number in words": "a = inf", "hexadecimal": "a = 0x10", "digits apart": "a = 1_000",
    "a sign": "a = +1", "a zero in front": "a = 01", "many digits": "a = 1234567890123456789", "a date": "a = 1979-05-27",
    "a time": "a = 07:32:00", "a list of tables": "[[a]]", "letters of others": 'a = "ä"', "a carriage return": "a = 1\r\n",
    "a control character": "a = 'x\0'", "twice": "a = 1\na = 2", "a table twice": "[a]\n[a]", "a table that is a value": "a = 1\n[a]",
    "a table below a value": "a = 1\n[a.b]", "a table below one on a line": "a = {}\n[a.b]", "more in one on a line": "a = {}\na.b = 1",
    "a table that dots made": "a.b = 1\n[a]", "a table below what dots made": "[x]\na.b = 1\n[x.a.c]",
    "more of an earlier section": "[a.b]\nc = 1\n[a]\nb.d = 1", "what is above a table, later": "[a.b]\n[a]",
    "no value": "a =", "no name": "= 1", "two on a line": "a = 1 b = 2", "a value over lines": "a =\n1", "an open list": "a = [1",
    "a comma too many in a table": "a = { b = 1, }", "a table over lines": "a = {\n}", "an open string": 'a = "x\n"',
    "deep": "a = " + "[" * 9 + "]" * 9, "a key of many parts": "a" + ".a" * 8 + " = 1", "a table of many parts": "[a" + ".a" * 8 + "]", "a comment in a table": "a = { # x\n }",
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_what_is_plain_is_read_as_python_reads_it(text: str) -> None:
    assert repr(read_plain(text)) == repr(tomllib.loads(text))


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT)
def test_what_is_not_is_left_to_python(text: str) -> None:
    assert read_plain(text) is None


def test_bounds_of_the_other_reader_hold() -> None:
    """Each is one that Python's own reader does not have."""
    for text in ("a" + ".a" * 128 + " = 1", "[a" + ".a" * 128 + "]", "a = 9223372036854775808"):
        with pytest.raises(ValueError, match=r"parts|64 bits"):
            read_toml(text)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_the_policies_of_our_images_are_plain(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert read_plain(text) == tomllib.loads(text)


@pytest.mark.long
def test_pieces_in_any_order_are_read_alike_or_not_at_all() -> None:
    """What nobody thought of: of 60,000 texts of TOML's pieces each that is read is read as Python reads it."""
    chance, read = random.Random(0), 0
    pieces = ("a", "b", "c-1", '"a"', "'b.c'", ".", ".", " = ", "=", "1", "-0", "true", '"x"', "''", "[", "]", "[a]\n", "[a.b]\n",
              "{", "}", ",", ", ", "\n", "\n", " ", "\t", "# x\n", "a.b = 1\n", "b = {}\n", "{ a = 1 }", "[1, 2]", "\\", "0x1", "1.5")
    for _ in range(60_000):
        text = "".join(chance.choices(pieces, k=chance.randint(1, 14)))
        found = read_plain(text)
        if found is not None:
            read += 1
            assert repr(found) == repr(tomllib.loads(text)), text
    assert read > 1500, "most of them are nonsense, but not all"
