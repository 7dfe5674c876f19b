# SPDX-License-Identifier: Apache-2.0
"""`nvrc topology`: the paths between GPUs and NICs, as the boot found them, like nvidia-smi topo -m."""

from __future__ import annotations

import argparse
from typing import TextIO

from nvrc.report.board import name_devices
from nvrc.report.links import matrix
from nvrc.report.report import from_json
from nvrc.report.view import align
from nvrc.vocabulary import paths
from nvrc.vocabulary.document import find_report, read_as, read_input
from nvrc.vocabulary.output import write_document

NAME = "topology"
HELP = "show the paths between GPUs and NICs"
EPILOG = """\
examples:
  nvrc topology                 in the VM: what its boot found
  nvrc topology boot.json       of a report that was kept
  nvrc topology --json          for machines

NVn: n NVLinks. PIX: one PCIe switch. PXB: several. PHB: the host bridge. NODE: host bridges of one NUMA node.
SYS: across NUMA nodes.

Exit status 1 if a GPU has fewer NVLinks than its board must have, 2 if there is no report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", default=paths.REPORT,
                        help="report (%(default)s), - for stdin")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    path: str = args.file
    report = read_as(lambda data: from_json(find_report(data)), path, read_input(path))
    names, missing = name_devices(report), [one for one in report.places if one.nvlinks < one.required]
    if args.json:
        write_document(out, {"names": {name: bdf for bdf, name in names.items()}, "devices": report.places,
                        "pairs": report.pairs, "complete": not missing})
        return 1 if missing else 0
    if not report.places:
        out.write("the report has no GPU or NIC whose place is known\n")
        return 0
    out.write("\n".join(align(matrix(report.places, report.pairs, names))) + "\n\n")
    out.write("\n".join(align([(names[one.bdf], one.bdf) for one in report.places])) + "\n")
    for one in missing:
        out.write(f"{names[one.bdf]}: {one.nvlinks} of {one.required} NVLinks are active\n")
    return 1 if missing else 0
