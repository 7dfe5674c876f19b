# SPDX-License-Identifier: Apache-2.0
"""The words of messages, for `./dev lint`: what a user can read from a program keeps to CONTRIBUTING.md's word list.

Read by ast: every text of a program is looked at, not docstrings and comments, so a message is seen wherever it is
made and however it is raised. A text without a blank is a name. The list is the page's own table: what the page
forbids is what is looked for.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nvrc_lab.ground.places import checkout

PAGE = "CONTRIBUTING.md"
SOURCES = ("nvrc", "guest_cdi", "build/nvrc_build", "qemu-tests/nvrc_lab", "dev")
# A row of the page's word list: `instead of` | `write`, phrases parted by commas.
_ROW = re.compile(r"^\| (?P<avoid>[^|`]+) \| (?P<write>[^|]+) \|$", re.MULTILINE)
_LIST = re.compile(r"^\| avoid \| write \|\n\|[-|]+\|\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
# What follows or precedes a phrase and makes it another one: "there is no GPU", "is no longer".
_BEFORE, _AFTER = r"(?<!there )(?<!There )(?<![\w-])", r"(?! longer)(?![\w-])"
# Calls whose text tells what to do, by the position of that text.
REMEDIES: Mapping[str, int] = {"FailureCode": 3, "NvrcError": 2, "CdiError": 2, "BuildError": 1, "LabError": 1,
                               "Signature": 5}
# Calls that hold words of other programs, which are theirs to choose.
FOREIGN: Mapping[str, int] = {"Signature": 2}
# What a remedy may begin with besides a verb: the case that it is for, or a list to choose from.
_CASES = frozenset(("if", "when", "known", "there"))


class Text(NamedTuple):
    """A text of a program; what is only known at run time stands as {}. `is_remedy`: the start of what to do."""

    path: str
    line: int
    words: str
    is_remedy: bool = False


def main() -> int:
    root = checkout().root
    page = (root / PAGE).read_text(encoding="utf-8")
    avoid, verbs = read_list(page), read_verbs(page)
    texts = [text for source in SOURCES for text in read_texts(root, root / source)]
    mistakes = [line for text in texts for line in judge(text, avoid)]
    mistakes += [line for text in texts if text.is_remedy for line in judge_remedy(text, verbs)]
    print("\n".join(mistakes) or f"words: {len(texts)} texts keep to the list in {PAGE}")
    return 1 if mistakes else 0


def read_list(page: str) -> Mapping[re.Pattern[str], str]:
    """What to avoid, and what to write instead; a page without the list is an error, not an empty list."""
    table = _LIST.search(page)
    if table is None:
        raise ValueError(f"{PAGE} has no table '| avoid | write |'")
    return {_pattern(phrase): row["write"].strip()
            for row in _ROW.finditer(table["rows"]) for phrase in row["avoid"].split(",")}


def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(_BEFORE + r"\s+".join(map(re.escape, phrase.split())) + _AFTER, re.IGNORECASE)


def read_verbs(page: str) -> frozenset[str]:
    """The verbs that a remedy begins with, from the page's own paragraph."""
    found = re.search(r"^Verbs of remedies: (?P<verbs>[^.]+)\.", page, re.MULTILINE)
    if found is None:
        raise ValueError(f"{PAGE} has no paragraph 'Verbs of remedies: ...'")
    return frozenset(found["verbs"].replace(",", " ").split())


def read_texts(root: Path, source: Path) -> Iterator[Text]:
    for path in sorted(source.rglob("*.py")) if source.is_dir() else (source,):
        name = path.relative_to(root).as_posix()
        yield from texts_of(name, ast.parse(path.read_text(encoding="utf-8")))


def texts_of(path: str, tree: ast.AST) -> Iterator[Text]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    remedies = set(_arguments(calls, REMEDIES))
    remedies |= {id(word.value) for call in calls for word in call.keywords if word.arg in ("hint", "remedy")}
    yield from _walk(path, tree, remedies, frozenset(_arguments(calls, FOREIGN)))


def _arguments(calls: Sequence[ast.Call], wanted: Mapping[str, int]) -> Iterator[int]:
    for call in calls:
        place = wanted.get(_name(call.func))
        if place is not None and place < len(call.args):
            yield id(call.args[place])


def _walk(path: str, node: ast.AST, remedies: set[int], foreign: frozenset[int]) -> Iterator[Text]:
    words = _text(node)
    if words is not None and " " in words.strip():
        yield Text(path, getattr(node, "lineno", 0), words, id(node) in remedies)
    parts: Sequence[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.JoinedStr):
        parts = [part for part in node.values if isinstance(part, ast.FormattedValue)]
    for part in parts:
        # A text alone on its line is a docstring.
        if not (isinstance(part, ast.Expr) and _text(part.value) is not None) and id(part) not in foreign:
            yield from _walk(path, part, remedies, foreign)


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def judge(text: Text, avoid: Mapping[re.Pattern[str], str]) -> Iterator[str]:
    for pattern, instead in avoid.items():
        found = pattern.search(text.words)
        if found is not None:
            line = text.line + text.words.count("\n", 0, found.start())
            yield f"{text.path}:{line}: {found[0]!r} in {_around(text.words, found)!r}; write: {instead}"


def judge_remedy(text: Text, verbs: frozenset[str]) -> Iterator[str]:
    first = re.match(r"[A-Za-z']+", text.words)
    if first is not None and first[0].lower() not in verbs and first[0].lower() not in _CASES:
        yield f"{text.path}:{text.line}: the remedy {text.words[:60]!r} begins with no verb of {PAGE}'s list"


def _around(words: str, found: re.Match[str]) -> str:
    return " ".join(words[max(0, found.start() - 30):found.end() + 30].split())


if __name__ == "__main__":
    sys.exit(main())
