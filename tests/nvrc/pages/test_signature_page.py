# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from nvrc.pages.signatures import render
from nvrc.pid1.health import FAULTS
from nvrc.services.signatures import SIGNATURES

PAGE = Path(__file__).parents[3] / "docs/failure-signatures.md"


def test_the_page_says_what_the_tables_say() -> None:
    assert PAGE.read_text() == render(), "run python -m nvrc.pages.signatures > docs/failure-signatures.md"


def test_every_row_is_there_once_with_all_its_cells() -> None:
    rows = [line for line in render().splitlines() if line.startswith("| ") and not line.startswith(("| signature", "| ---", "| Xid"))]
    assert len(rows) == len(SIGNATURES) + len(FAULTS)
    assert {line.count(" | ") for line in rows} == {5, 1}
