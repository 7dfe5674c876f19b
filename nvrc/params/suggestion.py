# SPDX-License-Identifier: Apache-2.0
"""From the lines that a class's pods boot with to the policy that allows these and no others. Off the boot path.

What every line gives with one value is pinned; what differs, or is missing on some, is limited to the values that were
seen and the default. Of the words of others @kata is allowed, because the runtime adds them to whatever a class says,
and beyond it each word with its value. The policy's own parser reads the result, and judges the lines by it, before it
is shown.
"""

from __future__ import annotations

import json

from guest_cdi.lean.light import Iterator, NamedTuple, Sequence
from nvrc.params.cmdline import shown, tokenise
from nvrc.params.module_options import driver_option
from nvrc.params.parse import Parsed, Source, parse
from nvrc.params.policy import load_policy
from nvrc.params.table import find
from nvrc.params.values import UNSET, text
from nvrc.params.words import DEFAULT, KATA, admits, entry_mistake, forbidden, foreign, split_entries

_STRICT = "nvrc.strict"


class Suggestion(NamedTuple):
    """`left_out`: what is on a line and cannot be in any policy, a sentence each."""

    text: str
    left_out: tuple[str, ...]


def suggest(lines: Sequence[bytes]) -> Suggestion:
    """What is wrong with a line whatever the policy is told as well."""
    words, refused = _words(lines)
    names = _names([parse(line) for line in lines])
    strange = [f"{name}={value}" for name, values in names.items() for value in values if not _is_text(value)]
    names = {name: values for name, values in names.items() if all(map(_is_text, values))}
    is_strict = "off" not in names.get(_STRICT, ())
    if is_strict:
        names.pop(_STRICT, None)
    pins = {name: values[0] for name, values in names.items() if len(set(values)) == 1 and UNSET not in values}
    limits = {name: values for name, values in names.items() if name not in pins}
    options = dict.fromkeys(option for line in lines for token in tokenise(line)
                            if (option := driver_option(token.key)))
    strange += [option for option in options if not option.isascii()]
    refused += tuple(f"{shown(one)} is not plain text" for one in dict.fromkeys(strange))
    document = "".join((
        "strict = true\n\n" if is_strict else "",
        _list("allow", [*limits, *(option for option in options if option.isascii())]), "\n",
        _list("words", [*DEFAULT, *words]),
        *_table("pin", {name: _quoted(value) for name, value in pins.items()}),
        *_table("limit", {name: _choices(values) for name, values in limits.items() if _bounds(values)})))
    policy = load_policy(document.encode())
    still = [str(problem) for line in lines for problem in parse(line, policy).errors]
    return Suggestion(document, tuple(dict.fromkeys((*refused, *still))))


def _names(parsed: Sequence[Parsed]) -> dict[str, list[str]]:
    """Every parameter that some line gives: its value on each line, the default where a line is silent."""
    given = [{name: value for name, value, source in one.described() if source is not Source.DEFAULT} for one in parsed]
    names = dict.fromkeys(name for one in given for name in one)
    return {name: [one.get(name, _default(name)) for one in given] for name in names}


def _default(name: str) -> str:
    row = find(name)
    return UNSET if row is None else text(row.default)


def _words(lines: Sequence[bytes]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of others that no set has, as entries; and those that no entry can allow."""
    runtime = split_entries(row.word for row in KATA)
    entries: dict[str, None] = {}
    refused: dict[str, None] = {}
    for token in (token for line in lines for token in foreign(line)):
        if forbidden(token) or admits(token, runtime):
            continue  # what no policy can allow, the lines are told of at the end
        entry = token.key if token.value is None else f"{token.key}={token.value}"
        entry = token.key if entry_mistake(entry) else entry
        if mistake := entry_mistake(entry):
            refused[f"{shown(entry)} {mistake}"] = None
        else:
            entries[entry] = None
    return tuple(entries), tuple(refused)


def _is_text(value: str) -> bool:
    """Whether a policy can hold it: bytes of a line that are no UTF-8 are lone surrogates here."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _quoted(text: str) -> str:
    """A basic string of TOML, which has no pairs of surrogates as JSON writes them."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _bounds(values: Sequence[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value != UNSET]


def _choices(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, _bounds(values)))}]"


def _list(name: str, items: Sequence[str]) -> str:
    return f"{name} = [" + "".join(f"\n    {_quoted(item)}," for item in items) + ("\n]\n" if items else "]\n")


def _table(name: str, rows: dict[str, str]) -> Iterator[str]:
    if rows:
        yield f"\n[{name}]\n"
    for key, value in rows.items():
        yield f"{_quoted(key) if key.startswith('kata.') else key} = {value}\n"
