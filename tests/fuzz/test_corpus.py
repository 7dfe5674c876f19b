# SPDX-License-Identifier: Apache-2.0
"""The corpus is replayed in every run of the unit tier; the driver without a fuzzer finds a planted mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.cases import Case
from fuzz.drive import CORPUS, LARGEST, mutate_for, seeds_of
from fuzz.parsers import PARSERS, Parser, find

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_parser_keeps_its_promise(parser: Parser) -> None:
    for seed in seeds_of(parser.name):
        with Case(seed.name):
            parser.try_on(seed.read_bytes())


def test_every_parser_has_seeds_and_every_seed_a_parser() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(parser.name for parser in PARSERS)
    assert all(seeds_of(parser.name) for parser in PARSERS)
    assert all(path.stat().st_size <= parser.largest <= LARGEST for parser in PARSERS for path in seeds_of(parser.name))


def test_no_name_stands_for_two_parsers() -> None:
    names = [parser.name for parser in PARSERS]
    assert len(set(names)) == len(names)
    assert find("kernel-line").who == "pod author, host"


def test_a_refusal_is_no_finding_and_anything_else_is() -> None:
    def run(data: bytes) -> None:
        raise (ValueError if data else KeyError)(data)

    parser = Parser("x", "", "", run, (ValueError,))
    parser.try_on(b"1")
    with pytest.raises(KeyError):
        parser.try_on(b"")


def test_without_a_fuzzer_coverage_leads_to_a_planted_mistake(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "found").mkdir()
    (tmp_path / "kept/seed").write_bytes(b"(ab)")
    count = mutate_for(planted, tmp_path / "kept", tmp_path / "found", 60.0, ("fuzz",))
    found = [path.read_bytes() for path in (tmp_path / "found").iterdir()]
    assert count > 1
    assert len(found) == 1
    assert found[0].startswith(b"((")
    assert len(list((tmp_path / "kept").iterdir())) > 1


def planted(data: bytes) -> None:
    if data[:1] == b"(":
        depth = 1
        if data[1:2] == b"(":
            depth += 1
            raise LookupError(depth)


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs/fuzzing.md").read_text().partition("## Executions")[0]
    assert [line for line in page.splitlines() if line.startswith("| `")] == [
        f"| `{parser.name}` | {parser.reads} | {parser.who} |" for parser in PARSERS]
