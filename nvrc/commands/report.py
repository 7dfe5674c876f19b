# SPDX-License-Identifier: Apache-2.0
"""`nvrc report`: a boot report as a table, or as pictures of the boot and of the machine."""

from __future__ import annotations

import argparse
from typing import TextIO

from nvrc.report.board import render_board
from nvrc.report.report import from_json, to_json
from nvrc.report.svg import render_svg
from nvrc.report.view import show_report
from nvrc.vocabulary import paths
from nvrc.vocabulary.document import find_report, read_as, read_input
from nvrc.vocabulary.terminal import width_of
from nvrc.vocabulary.verdict import Verdict

NAME = "report"
HELP = "show a boot report as a table or a timeline"
EPILOG = """\
examples:
  nvrc report                           this VM's own boot
  nvrc report boot.json                 a report that was kept
  nvrc report boot.json --svg boot.svg  a timeline to look at in a browser
  nvrc report boot.json --board machine.svg  the machine: GPUs, NICs, links, in red what is missing
  nvrc report console.log               the last report in a log of a VM booted with nvrc.report=console
  nvrc report - --json < boot.json      checked and printed again

Exit status 1 if the boot failed or was not finished, 2 if the file cannot be read as a report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", default=paths.REPORT,
                        help="report (%(default)s), - for stdin")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--svg", metavar="OUT", help="write a timeline to this file, - for stdout")
    form.add_argument("--board", metavar="OUT", help="draw the machine into this file, - for stdout")


def run(args: argparse.Namespace, out: TextIO) -> int:
    path: str = args.file
    report = read_as(lambda data: from_json(find_report(data)), path, read_input(path))
    if args.json:
        out.write(to_json(report).decode())
    elif args.svg:
        _write(render_svg(report), args.svg, out)
    elif args.board:
        _write(render_board(report), args.board, out)
    else:
        out.write(show_report(report, width_of(out)))
    return 1 if report.verdict in (Verdict.FAILED, Verdict.BOOTING) else 0


def _write(picture: str, path: str, out: TextIO) -> None:
    if path == "-":
        out.write(picture)
        return
    with open(path, "w", encoding="ascii") as file:
        file.write(picture)
