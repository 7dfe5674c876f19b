# SPDX-License-Identifier: Apache-2.0
"""docs/guest-cdi.md says what the code says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from guest_cdi import cli
from guest_cdi.lean.errors import CODES, CdiError
from guest_cdi.versions import RELEASES

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "guest-cdi.md").read_text()


def failure_table() -> str:
    rows = ["| code | command | meaning | what to do |", "|---|---|---|---|"]
    rows += [f"| `{row.code}` | {row.step} | {row.meaning} | {row.remedy} |" for row in CODES]
    return "\n".join(rows)


def release_table() -> str:
    names = [field.name for field in dataclasses.fields(RELEASES[0]) if field.name != "name"]
    rows = [f"| rule | {' | '.join(row.name for row in RELEASES)} |", f"|---{'|---' * len(RELEASES)}|"]
    for name in names:
        cells = " | ".join("yes" if getattr(row, name) else "no" for row in RELEASES)
        rows.append(f"| {name.replace('_', ' ')} | {cells} |")
    return "\n".join(rows)


@pytest.mark.parametrize("table", [failure_table(), release_table()], ids=["failures", "releases"])
def test_tables_are_those_of_the_code(table: str) -> None:
    assert table in PAGE


def test_every_improvement_names_a_test_that_exists() -> None:
    improvements = PAGE.partition("### Better than the reference")[2].partition("\n## ")[0]
    named = re.findall(r"`(test_\w+)`", improvements)
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert len(named) > 10
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_every_flag_is_on_the_page() -> None:
    flags = {max(action.option_strings, key=lambda flag: flag in PAGE) for action in cli.build_parser()._actions}
    assert {flag for flag in flags if flag not in PAGE and flag not in ("-h", "--help")} == set()


def test_every_code_in_use_has_its_row() -> None:
    used = {code for path in (REPOSITORY / "guest_cdi").rglob("*.py")
            for code in re.findall(r'"(E_CDI_[A-Z_]+)"', path.read_text())}
    assert used == {row.code for row in CODES}


def test_codes_are_unique_and_give_a_hint() -> None:
    assert len({row.code for row in CODES}) == len(CODES)
    error = CdiError("E_CDI_NO_GPU", "none here")
    assert str(error) == f"none here (E_CDI_NO_GPU): {error.hint}"
    assert str(CdiError("E_CDI_NO_GPU", "none here", "buy one")) == "none here (E_CDI_NO_GPU): buy one"
