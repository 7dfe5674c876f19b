# SPDX-License-Identifier: Apache-2.0
"""`./dev fuzz --count`: the page's table of executions goes on from what it says."""

from __future__ import annotations

from nvrc_lab.commands.fuzz import HEAD, PAGE, add_executions
from nvrc_lab.ground.places import checkout

KNOWN = ("kernel-line", "policy", "archive")
BEFORE, AFTER = "# Fuzzing\n\n", "\nWhat follows.\n"


def ran(parser: str, executions: int) -> dict[str, object]:
    return {"parser": parser, "executions": executions, "found": []}


def test_executions_are_added_in_the_order_of_the_parsers() -> None:
    first = add_executions(BEFORE + HEAD + AFTER, [ran("archive", 5), ran("kernel-line", 1_000_000)], KNOWN, "2026-01-01")
    assert first == f"{BEFORE}{HEAD}| `kernel-line` | 1 000 000 | 2026-01-01 |\n| `archive` | 5 | 2026-01-01 |\n{AFTER}"
    second = add_executions(first, [ran("kernel-line", 234), ran("policy", 7)], KNOWN, "2026-02-02")
    assert second == (f"{BEFORE}{HEAD}| `kernel-line` | 1 000 234 | 2026-02-02 |\n| `policy` | 7 | 2026-02-02 |\n"
                      f"| `archive` | 5 | 2026-01-01 |\n{AFTER}")


def test_a_parser_that_is_no_more_goes() -> None:
    page = f"{BEFORE}{HEAD}| `gone` | 9 | 2026-01-01 |\n{AFTER}"
    assert add_executions(page, [], KNOWN, "2026-02-02") == BEFORE + HEAD + AFTER


def test_the_page_is_one_that_can_be_added_to() -> None:
    page = (checkout().root / PAGE).read_text(encoding="utf-8")
    assert page.count(HEAD) == 1
    names = [line.split("`")[1] for line in page.partition(HEAD)[2].splitlines() if line.startswith("| `")]
    assert names
    assert add_executions(page, [], names, "2026-02-02") == page
