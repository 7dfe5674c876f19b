# SPDX-License-Identifier: Apache-2.0
"""TOML of others: whatever is wrong with it is a ValueError that can be told."""

from __future__ import annotations

import pytest

from nvrc.params.policy import load_policy
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.tomltext import parse_toml

POLICY = f"\"\"\"{'input.rules[_].path == a.b.c' * 1000}\"\"\""
_QUOTES = "'" * 2_000_000
LONG = "0x" + "f" * 4000  # of which Python makes a number that it does not print


@pytest.mark.long
@pytest.mark.parametrize("text", [
    f"a = {LONG}", f"a = [[1], [{LONG}]]", f"[a.b]\nc = [{{d = {LONG}}}]", "a = 9223372036854775808",
    "a = -9223372036854775809", "a = " + "[" * 100_000, "a = " + "1" * 5000, "a = 1\na = 2", "\ud800 = 1",
    "a" + ".a" * 128 + " = 1", "a" + " . a" * 100_000 + " = 1", '"a.b"' + ".'c'" * 1_000_000 + " = 1", "[a" + ".a" * 20_000 + "]",
    "a = {b" + ".c" * 20_000 + " = 1}"])
def test_what_is_no_toml_of_others_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_toml(text)
    assert len(str(caught.value)) < 200


@pytest.mark.long
@pytest.mark.parametrize("text", [
    "a" + ".a" * 127 + " = 1", f"x = '{'a.' * 120}'", f"x = {POLICY}",
    f"x = '{'a' * 4_000_000}'\n#{'.' * 200}", f"#{_QUOTES}{'.' * 200}"], ids=["most-parts", "text", "policy", "word", "quotes"])
def test_what_only_looks_like_a_long_key_is_read(text: str) -> None:
    assert isinstance(parse_toml(text), dict)


def test_the_longest_numbers_are_read() -> None:
    assert parse_toml("a = 9223372036854775807\nb = [-9223372036854775808, 0x7fff, true]") == {
        "a": (1 << 63) - 1, "b": [-(1 << 63), 0x7FFF, True]}


@pytest.mark.parametrize("body", ["[pin]\nnvrc.gpus = ", "[limit]\nnvrc.smi.pl.min = ", "strict = "])
def test_a_policy_with_such_a_number_is_refused_in_words(body: str) -> None:
    with pytest.raises(NvrcError, match="a whole number of more than 64 bits"):
        load_policy((body + LONG).encode())
