# SPDX-License-Identifier: Apache-2.0
"""Codes: what mypy takes for one is a row of the table, and none is the head of a sentence."""

from __future__ import annotations

import ast
import re

import pytest

from fakes.sources import ROOT, nodes_of
from guest_cdi.lean.errors import CODES as CDI_CODES
from nvrc.vocabulary.errors import CODES, known_code, make_trouble


@pytest.mark.parametrize(("file", "name", "rows"), [
    ("nvrc/vocabulary/errors.py", "Code", CODES), ("guest_cdi/lean/errors.py", "CdiCode", CDI_CODES),
], ids=["nvrc", "guest_cdi"])
def test_what_may_be_raised_is_what_has_a_row(file: str, name: str, rows: tuple[tuple[str, ...], ...]) -> None:
    (typed,) = (node.value for node in nodes_of(ROOT / file) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name)
    assert re.findall(r"'(E_[A-Z0-9_]+)'", ast.unparse(typed)) == [row[0] for row in rows]


@pytest.mark.long
def test_no_sentence_begins_with_a_code() -> None:
    """It would be read off again somewhere. A trouble is a value; the console puts its code before it."""
    texts = [(file.name, node.value) for file in sorted((ROOT / "nvrc").rglob("*.py")) for node in nodes_of(file)
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [(name, text) for name, text in texts if re.match(r"E_[A-Z0-9_]+:? ", text)] == []
    assert len(texts) > 1000


@pytest.mark.parametrize(("text", "code"), [("E_MOUNT", "E_MOUNT"), ("E_CDI_LIBCUDA", "E_CDI_LIBCUDA"), ("E_NEW", None), ("", None)])
def test_text_is_a_code_only_if_the_table_has_it(text: str, code: str | None) -> None:
    assert known_code(text) == code


def test_a_trouble_without_advice_has_that_of_its_row() -> None:
    codes = {row.code: known_code(row.code) for row in CODES}
    assert {code: make_trouble(code, "what").hint for code in codes.values() if code} == {row.code: row.remedy for row in CODES}
    assert {make_trouble(code, "what", "mine").hint for code in codes.values() if code} == {"mine"}
