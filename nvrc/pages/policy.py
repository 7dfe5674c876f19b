# SPDX-License-Identifier: Apache-2.0
"""The tables inside docs/policy.md: words that no policy allows, and those of Kata's runtimes. Off the boot path.

The page is prose with tables between `<!-- table: NAME -->` and `<!-- end of table -->`; what stands there is written
from nvrc/params/words.py. `python -m nvrc.pages.policy` writes, `--check` only compares.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nvrc.params.words import KATA, NEVER, Row

_PAGE = "policy.md"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(\n<!-- end of table -->)", re.DOTALL)
TABLES: Mapping[str, Sequence[Row]] = {"never": NEVER, "kata": KATA}


def fill(page: str) -> str:
    """The page with its tables as they should be; KeyError for a table that nobody knows."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{_table(TABLES[found[2]])}\n{found[3]}", page)


def _table(rows: Sequence[Row]) -> str:
    """Rows of one reason share a line."""
    reasons = dict.fromkeys(row.why for row in rows)
    lines = ["| words | why |", "|---|---|"]
    lines += [f"| {_words(row.word for row in rows if row.why == why)} | {why} |" for why in reasons]
    return "\n".join(lines)


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nvrc.pages.policy", description="Write the tables of policy.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, name what is out of date and exit 1")
    parser.add_argument("--docs", default="docs", metavar="DIR", help="where the pages are (%(default)s)")
    args = parser.parse_args(argv)
    path = Path(args.docs, _PAGE)
    page = path.read_text(encoding="utf-8")
    if fill(page) == page:
        return 0
    if not args.check:
        path.write_text(fill(page), encoding="utf-8")
    print(f"{path}: " + ("out of date, run python -m nvrc.pages.policy" if args.check else "written"))
    return 1 if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
