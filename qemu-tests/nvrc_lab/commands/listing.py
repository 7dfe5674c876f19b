# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab list`: the scenarios of this checkout, and what each of them is about."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import lay_table, width_of

SUMMARY = "list the scenarios"
EXAMPLES = """\
examples:
  nvrc-lab list                 names and what they are about
  nvrc-lab list fault           those with the word in their name
  nvrc-lab list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help="only names with all of these in them")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="another folder of scenarios")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.scenario.scenario import list_scenarios, read_scenario  # noqa: PLC0415

    paths = [path for path in list_scenarios(args.folder or checkout().scenarios)
             if all(word in path.stem for word in args.words)]
    rows = [(path.stem, read_scenario(path)) for path in paths]
    if args.json:
        write_document(sys.stdout, {"scenarios": [
            {"name": name, "summary": one.summary, "verdict": one.expect.verdict.value, "code": one.expect.code,
             "faults": [fault.name for fault in one.faults]} for name, one in rows]})
        return 0
    table = [(name, (one.expect.code or one.expect.verdict.value).ljust(22), one.summary) for name, one in rows]
    print("".join(f"{line}\n" for line in lay_table(table, width_of(sys.stdout))) if table else "", end="")
    return 0
