# SPDX-License-Identifier: Apache-2.0
"""Words of the command line, split as the kernel splits them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvrc.params.cmdline import Token, plain, shown, tokenise, word

# The machine that runs this may be busy with others.
unhurried = settings(deadline=None)

LINES = {
    "nothing": (b"", ()),
    "only white space": (b" \t\n", ()),
    "flags and values": (b"ro root=/dev/vda1\n", (Token("ro"), Token("root", "/dev/vda1"))),
    "every kernel space": (b"a\tb\nc\vd\fe\rf\xa0g", tuple(Token(c) for c in "abcdefg")),
    "value keeps further =": (b"a=b=c", (Token("a", "b=c"),)),
    "leading = is part of the key": (b"=a=b", (Token("=a", "b"),)),
    "empty value": (b"a= b", (Token("a", ""), Token("b"))),
    "quoted value": (b'a="b c" d', (Token("a", "b c"), Token("d"))),
    "quoted empty value": (b'a="" d', (Token("a", ""), Token("d"))),
    "quoted word": (b'"a=b c" d', (Token("a", "b c"), Token("d"))),
    "quoted flag": (b'"a b" c', (Token("a b"), Token("c"))),
    "quotes in the middle stay": (b'a=b"c d"e', (Token("a", 'b"c d"e'),)),
    "quote at the end of an unquoted value stays": (b'a=b"c d"', (Token("a", 'b"c d"'),)),
    "quotes around word and value": (b'"a="b"', (Token("a", "b", unclosed=True),)),
    "value after a quoted word's value": (b'"a="b c"', (Token("a", "b"), Token('c"'))),
    "two dashes are a word": (b"a -- b=c", (Token("a"), Token("--"), Token("b", "c"))),
    "never closed": (b'a="b c=d', (Token("a", "b c=d", unclosed=True),)),
    "lone quote": (b'a "', (Token("a"), Token("", unclosed=True))),
    "not UTF-8": (b"a=\xff\xfe", (Token("a", "\udcff\udcfe"),)),
    "dm table is one word": (
        b'dm-mod.create="dm-verity,,,ro,0 8 verity 1 /dev/vda1 nvrc.smi.srs=1" quiet',
        (Token("dm-mod.create", "dm-verity,,,ro,0 8 verity 1 /dev/vda1 nvrc.smi.srs=1"), Token("quiet"))),
}


@pytest.mark.parametrize(("line", "tokens"), LINES.values(), ids=LINES.keys())
def test_a_line_splits_as_in_the_kernel(line: bytes, tokens: tuple[Token, ...]) -> None:
    got = tokenise(line)
    # An odd number of quotes marks the last word; rows above that are about something else leave the mark out.
    assert tuple(token[:2] for token in got) == tuple(token[:2] for token in tokens)
    assert any(token.unclosed for token in got) == bool(line.count(b'"') % 2)
    assert not any(token.unclosed for token in got[:-1])


@unhurried
@given(st.binary(max_size=4096))
def test_any_bytes_split_without_losing_any_but_spaces_and_quotes(line: bytes) -> None:
    joined = "".join(token.key + (token.value or "") for token in tokenise(line)).encode("utf-8", "surrogateescape")
    for dropped in b'\t\n\v\f\r \xa0"=':
        joined = joined.replace(bytes([dropped]), b"")
        line = line.replace(bytes([dropped]), b"")
    assert joined == line


@unhurried
@given(st.from_regex(r"[a-z][a-z.]*", fullmatch=True), st.text(st.characters(exclude_characters='"', codec="ascii")))
def test_a_word_that_is_written_reads_back(key: str, value: str) -> None:
    assert tokenise(word(key, value).encode()) == (Token(key, value),)


def test_a_word_has_quotes_only_where_it_needs_them() -> None:
    assert [word("a", value) for value in ("b", "", "b c", "b\u00a0c", "\u00e9")] == [
        "a=b", "a=", 'a="b c"', 'a="b\u00a0c"', 'a="\u00e9"']


def test_text_for_messages_is_printable_and_bounded() -> None:
    assert shown("a\x1b[31m\udcff\u20ac") == r"'a\x1b[31m\udcff\u20ac'"
    assert [shown("x" * length) for length in (60, 61, 5000)] == [f"'{'x' * 60}'", *[f"'{'x' * 60}...'"] * 2]


def test_a_name_stands_as_it_is_while_it_fits_a_line() -> None:
    assert [plain("x" * length) for length in (80, 81)] == ["x" * 80, f"'{'x' * 60}...'"]
    assert plain("a\tb") == r"'a\tb'"
