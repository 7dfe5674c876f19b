# SPDX-License-Identifier: Apache-2.0
"""`nvrc status`: the live state of the VM it runs in."""

from __future__ import annotations

import argparse
from typing import TextIO

from nvrc import paths
from nvrc.document import read_as, read_input
from nvrc.report_view import show_status
from nvrc.status import from_json, to_json
from nvrc.verdict import Verdict

NAME = "status"
HELP = "show the live state: verdict, services, GPUs"
EPILOG = """\
examples:
  nvrc status                  in the VM
  nvrc status --json           for machines
  nvrc status --file saved.json

Exit status 1 unless the verdict is ready or no-gpu, 2 if there is no status: not in a VM that this init booted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", default=paths.STATUS, help="status (%(default)s), - for stdin")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    path: str = args.file
    status = read_as(from_json, path, read_input(path))
    out.write(to_json(status).decode() if args.json else show_status(status))
    return 0 if status.verdict in (Verdict.READY, Verdict.NO_GPU) else 1
