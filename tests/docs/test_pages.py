# SPDX-License-Identifier: Apache-2.0
"""Every page: files that it names exist, links lead somewhere, headings that links name are there, prose is wrapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))))
NAMED = re.compile(r"`((?:nvrc|guest_cdi|build/nvrc_build|qemu-tests|tests|docs|kubectl)/[\w./-]*\w\.(?:py|md|yaml|toml|txt|c|sh|svg))`")
# What CONTRIBUTING.md's example adds.
MADE = {"nvrc/steps/entropy.py", "tests/nvrc/steps/test_entropy.py", "qemu-tests/scenarios/entropy-low.yaml"}
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LONGEST = 140


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> Iterator[str]:
    """As the hosts of the pages make them: lower case, marks gone, blanks to dashes."""
    for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    assert [name for name in NAMED.findall(prose(page)) if not (ROOT / name).exists() and name not in MADE] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not link.startswith(("https://", "mailto:")) and not (target.exists() and (not anchor or anchor in anchors(target))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if len(line) > LONGEST and not line.startswith(("|", "<!--", "    "))]
    assert lines == []
