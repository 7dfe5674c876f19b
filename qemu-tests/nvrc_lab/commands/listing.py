# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab list`: the scenarios of this checkout, and what each of them is about."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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
    parser.add_argument("--json", action="store_true", help="print a list of objects")


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.scenario.scenario import list_scenarios, read_scenario  # noqa: PLC0415

    paths = [path for path in list_scenarios(args.folder or checkout().scenarios)
             if all(word in path.stem for word in args.words)]
    rows = [(path.stem, read_scenario(path)) for path in paths]
    if args.json:
        print(json.dumps([{"name": name, "summary": one.summary, "verdict": one.expect.verdict.value,
                           "code": one.expect.code, "faults": [fault.name for fault in one.faults]}
                          for name, one in rows], indent=1))
        return 0
    width = max((len(name) for name, _ in rows), default=0)
    for name, one in rows:
        print(f"{name:<{width}}  {one.expect.code or one.expect.verdict.value:<22}  {one.summary}")
    return 0
