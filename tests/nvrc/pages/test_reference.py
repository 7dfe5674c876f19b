# SPDX-License-Identifier: Apache-2.0
"""The pages that are tables of the program say what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvrc.pages.reference import PAGES, main
from nvrc.params.table import PARAMS
from nvrc.vocabulary.errors import CODES

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run python -m nvrc.pages.reference"


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    for render in PAGES.values():
        rows = [line.replace("\\|", "").count("|") for line in render().splitlines() if line.startswith("| ")]
        assert len(rows) > 5
    codes = [line for line in PAGES["failure-codes.md"]().splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in codes} == {6}


def test_codes_of_both_tables_are_on_the_page() -> None:
    page = PAGES["failure-codes.md"]()
    assert all(f"| `{row.code}` |" in page for row in CODES)
    assert "| `E_CDI_GPU_NODE` | cdi |" in page
    assert "E_CDI_HOOK_STATE" not in page, "that is said inside a container"


def test_every_parameter_has_a_section_that_the_table_links_to() -> None:
    page = PAGES["kernel-parameters.md"]()
    headings = [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")]
    assert headings == [row.name for row in PARAMS]
    assert "[`nvrc.timeout.per_gpu`](#nvrctimeoutper_gpu)" in page
    assert "[`kata.extension.<name>.verity_params`](#kataextensionnameverity_params)" in page


def test_text_stays_within_the_page_except_in_tables() -> None:
    for render in PAGES.values():
        assert [line for line in render().splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_the_command_writes_what_is_missing_or_stale_and_then_rests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    stale = tmp_path / "failure-codes.md"
    stale.write_text("old")
    assert main(["--docs", str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().out.count("out of date, run python -m nvrc.pages.reference") == len(PAGES)
    assert stale.read_text() == "old"
    assert main(["--docs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(": written") == len(PAGES)
    assert main(["--docs", str(tmp_path), "--check"]) == 0
    assert main(["--docs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
