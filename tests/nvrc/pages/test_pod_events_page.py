# SPDX-License-Identifier: Apache-2.0
"""The page about what a pod's events say, made from the tables of codes, parameters and of the end."""

from __future__ import annotations

import re
from pathlib import Path

from guest_cdi.errors import CODES as CDI_CODES
from nvrc.pages.pod_events import ELSEWHERE, render
from nvrc.params.table import find
from nvrc.pid1.ending import ENDING
from nvrc.vocabulary.errors import CODES

PAGE = Path(__file__).parents[3] / "docs/pod-events.md"


def rows(*, starting: str) -> list[str]:
    return [line for line in render().splitlines() if line.startswith(starting)]


def test_the_page_says_what_the_tables_say() -> None:
    assert PAGE.read_text() == render(), "run ./dev docs"


def test_every_code_is_there_once_with_what_is_said() -> None:
    codes = [line.split("`")[1] for line in rows(starting="| `E_")]
    assert codes[:len(CODES)] == [row.code for row in CODES]
    assert len(set(codes)) == len(codes)
    assert set(codes[len(CODES):]) < {row.code for row in CDI_CODES}
    assert set(codes) > set(ELSEWHERE)
    for line in rows(starting="| `E_"):
        assert line.count(" | ") == 2
        assert ("| event" in line) == (f"`guest init: {line.split('`')[1]} in step " in line)


def test_the_order_of_the_end_is_the_tables() -> None:
    assert [line.split(" | ")[1] for line in rows(starting="| ") if re.match(r"\| \d", line)] == [row.name for row in ENDING]


def test_parameters_that_it_names_exist() -> None:
    prose = render().partition("## What each code says")[0]
    named = set(re.findall(r"nvrc\.(?:(?:timeout|agent)\.)?[a-z_]+", prose)) - {"nvrc.pages"}
    assert {name for name in named if find(name) is None} == set()


def test_text_stays_within_the_page_except_in_tables() -> None:
    assert [line for line in render().splitlines() if len(line) > 120 and not line.startswith("|")] == []
