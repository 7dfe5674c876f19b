# SPDX-License-Identifier: Apache-2.0
"""What holds for every command line and every policy, not only for those that somebody thought of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvrc.params.cmdline import word
from nvrc.params.extension import Extension, VerityParams
from nvrc.params.parse import Parsed, Severity, Source, parse, setting
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.params.table import PARAMS, Param
from nvrc.params.values import UNSET, text
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.nearmiss import closest, distance

# The machine that runs this may be busy with others.
unhurried = settings(deadline=None)
ORDINARY = tuple(row for row in PARAMS if not row.is_pattern)
NAMES = tuple(name for row in PARAMS for name in (row.name.replace("<name>", "gpu"), *row.aliases))
POLICIES = (NO_POLICY, load_policy(b"""
strict = true
allow = ["nvrc.*", "kata.extension.gpu.*"]
deny = ["nvrc.dcgm"]
pin.nvrc.ready = "never"
[limit]
nvrc.cc = ["any", "on"]
nvrc.smi.pl = { min = 100, max = 400 }
"""))

values = st.one_of(
    st.sampled_from(["", "on", "off", "0", "1", "all", "min:3", "gpu", "all:1g.10gb*7", "debug", "a=1,b=2", "enabled"]),
    st.integers(-1, 1 << 70).map(str),
    st.text(st.characters(exclude_characters='"', codec="utf-8")),
    st.lists(st.sampled_from(["0", "1-3", "all", "1g.10gb", "off", "+me", "*", ":", ";", ",", "2"])).map("".join),
)
our_words = st.builds(lambda key, value: word(key, value).encode(), st.sampled_from(NAMES), values)
lines = st.one_of(
    st.binary(max_size=4096),
    st.lists(our_words | st.binary(max_size=20) | st.sampled_from(NAMES).map(str.encode), max_size=40).map(b" ".join),
)
hexes = st.binary(min_size=1, max_size=8).map(bytes.hex)
extensions = st.builds(
    Extension, name=st.from_regex(r"[A-Za-z0-9_-]{1,10}", fullmatch=True),
    verity=st.builds(VerityParams, root_hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
                     salt=hexes | st.just("-"), data_blocks=st.integers(1, 1 << 48),
                     data_block_size=st.sampled_from([512, 4096, 65536]),
                     hash_block_size=st.sampled_from([512, 1024, 4096])))


def line_of(parsed: Parsed) -> bytes:
    """The words that say what a parsed line said."""
    return " ".join(word(name, value) for name, value, _source in parsed.described() if value != UNSET).encode()


@unhurried
@given(lines, st.sampled_from(POLICIES))
def test_no_line_makes_parse_raise_and_errors_raise_one_kind(line: bytes, policy: Policy) -> None:
    parsed = parse(line, policy)
    assert all(str(problem).isascii() and str(problem).isprintable() for problem in parsed.problems)
    try:
        parsed.raise_on_error()
    except NvrcError as err:
        assert err.code == "E_PARAMETERS"
        assert all(str(problem) in err.what for problem in parsed.errors)
    else:
        assert not parsed.errors


@unhurried
@given(lines, st.sampled_from(POLICIES))
def test_what_a_line_set_prints_to_a_line_that_sets_the_same(line: bytes, policy: Policy) -> None:
    parsed = parse(line, policy)
    again = parse(line_of(parsed))
    assert again.settings.extensions == parsed.settings.extensions
    assert all(setting(again.settings, row) == setting(parsed.settings, row) for row in ORDINARY)


@unhurried
@given(st.sampled_from(ORDINARY), values)
def test_an_accepted_value_prints_back_to_itself(row: Param, given_text: str) -> None:
    parsed = parse(word(row.name, given_text).encode())
    if parsed.errors or parsed.source(row.field) is Source.DEFAULT:
        return
    value = setting(parsed.settings, row)
    assert setting(parse(word(row.name, text(value)).encode()).settings, row) == value


@pytest.mark.long
@unhurried
@given(st.lists(extensions, unique_by=lambda extension: extension.name, max_size=4))
def test_extensions_print_back_to_themselves(given_extensions: list[Extension]) -> None:
    words = (word(f"kata.extension.{one.name}.verity_params", one.verity.text()) for one in given_extensions)
    parsed = parse(" ".join(words).encode())
    assert parsed.settings.extensions == tuple(given_extensions)
    assert not parsed.problems


@unhurried
@given(lines)
def test_strict_refuses_exactly_what_check_would_find(line: bytes) -> None:
    # Strictness alone: what else may stand on the line is another section's business.
    strict = load_policy(b"strict = true")._replace(words=None)
    lenient, refused = parse(line), parse(line, strict)
    assert lenient.is_clean or refused.errors
    # Only a line that itself speaks of nvrc.strict can find more under the policy: a contradiction to it.
    if lenient.source("strict") is Source.DEFAULT:
        assert not lenient.is_clean or not refused.errors


@unhurried
@given(lines)
def test_a_pinned_value_holds_whatever_the_line_says(line: bytes) -> None:
    parsed = parse(line, load_policy(b'pin.nvrc.cc = "ppcie"\npin.nvrc.gpus = 8'))
    assert text(parsed.settings.cc) == "ppcie"
    assert text(parsed.settings.gpus) == "8"


@unhurried
@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda given_text: given_text.encode("utf-8", "replace")))
def test_no_policy_file_raises_anything_but_its_code(data: bytes) -> None:
    try:
        load_policy(data)
    except NvrcError as err:
        assert err.code == "E_POLICY"


toml_values = st.recursive(
    st.sampled_from(["true", '"on"', "7", "0.5", "1979-05-27", "[]", "{}"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    | st.dictionaries(st.sampled_from(["min", "max", "x", '"nvrc.cc"']), inner, max_size=2)
    .map(lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"), max_leaves=6)


@unhurried
@given(st.dictionaries(
    st.sampled_from(["strict", "pin", "allow", "deny", "limit", "pin.nvrc.log", "limit.nvrc.smi.pl", "limit.nvrc.cc"]),
    toml_values, max_size=4))
def test_no_policy_of_the_right_shape_raises_anything_but_its_code(document: dict[str, str]) -> None:
    data = "\n".join(f"{key} = {value}" for key, value in document.items()).encode()
    try:
        policy = load_policy(data)
    except NvrcError as err:
        assert err.code == "E_POLICY"
        return
    assert all(problem.severity is Severity.ERROR for problem in parse(b"", policy).problems)


@unhurried
@given(st.text("abn.", max_size=6), st.text("abn.", max_size=6))
def test_the_number_of_typing_mistakes_is_a_distance(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, other) <= max(len(one), len(other))


@unhurried
@given(st.sampled_from(NAMES[:-1]), st.data())
def test_one_typing_mistake_in_a_name_is_pointed_back_to_a_name(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    mistyped = name[:at] + name[at + 1:]
    near = closest(mistyped, NAMES)
    assert near is not None
    assert distance(mistyped, near) <= 1
