# SPDX-License-Identifier: Apache-2.0
"""What lint says of the words of messages: the page's list is the list, wherever a text stands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nvrc_lab.commands.words import PAGE, Text, judge, judge_remedy, read_list, read_verbs, texts_of

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")

CASES = {
    "in an exception": ("raise Exception('nobody answers here')", "nobody"),
    "in a variable": ("what = f'GPU {bdf} is no GPU'", "is no"),
    "in another text's value": ("print(f'{\"nobody is here\"} and more')", "nobody"),
    "over two lines": ("warn('the daemon is at '\n     'work on none')", "at work"),
    "in help": ("parser.add_argument('--x', help='Wanted by whoever starts it')", "whoever"),
    "at the start": ("x = 'Nobody is here'", "Nobody"),
}
ACCEPTED = {
    "a comment": "x = 1  # nobody is here",
    "a docstring": "def f():\n    'nobody is here'",
    "a name": "x = 'nobody'",
    "there is no": "x = 'there is no GPU here'",
    "no longer": "x = 'it is no longer here'",
    "words of another program": "Signature('a', 'b', ('fabric is no more',), '', 'c d', 'start it now', 'e')",
    "part of another word": "x = 'the wants-list of it'",
}


@pytest.mark.parametrize(("source", "found"), CASES.values(), ids=CASES)
def test_a_word_of_the_list_is_found(source: str, found: str) -> None:
    lines = [line for text in texts_of("a.py", ast.parse(source)) for line in judge(text, read_list(TEXT))]
    assert [line.split("'")[1] for line in lines] == [found]
    assert lines[0].startswith("a.py:1: ")


@pytest.mark.parametrize("source", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_no_message_and_what_is_well_said_passes(source: str) -> None:
    assert [line for text in texts_of("a.py", ast.parse(source)) for line in judge(text, read_list(TEXT))] == []


@pytest.mark.parametrize(("source", "good"), [
    ("NvrcError('E_X', 'it failed', 'reset the GPU')", True),
    ("NvrcError('E_X', 'it failed', hint='reset the GPU')", True),
    ("NvrcError('E_X', 'it failed', 'the GPU needs a reset')", False),
    ("NvrcError('E_X', 'it failed', f'{name} needs a reset')", True),
    ("FailureCode('E_X', 'any', 'it failed', 'its lines say why', HOST)", False),
])
def test_a_remedy_begins_with_a_verb(source: str, good: bool) -> None:
    verbs = read_verbs(TEXT)
    found = [line for text in texts_of("a.py", ast.parse(source)) if text.is_remedy for line in judge_remedy(text, verbs)]
    assert (found == []) == good


@pytest.mark.parametrize("read", [read_list, read_verbs])
def test_a_page_without_the_list_is_an_error(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=PAGE):
        read("# Contributing\n")


def test_a_line_of_a_long_text_is_named() -> None:
    lines = list(judge(Text("a.py", 10, "usage:\n  x\n  for nobody\n"), read_list(TEXT)))
    assert lines[0].startswith("a.py:12: 'nobody'")
