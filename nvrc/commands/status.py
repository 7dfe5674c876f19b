# SPDX-License-Identifier: Apache-2.0
"""`nvrc status`: the live state of the VM it runs in."""

from __future__ import annotations

import argparse
from typing import TextIO

from nvrc.machine.control import ask
from nvrc.report.status import from_json, to_json
from nvrc.report.view import show_status
from nvrc.vocabulary import paths
from nvrc.vocabulary.document import read_as, read_input
from nvrc.vocabulary.verdict import Verdict

NAME = "status"
HELP = "show the live state: verdict, services, GPUs"
EPILOG = """\
examples:
  nvrc status                  in the VM: PID 1 is asked, or what it wrote last is read
  nvrc status --json           for machines
  nvrc status --file saved.json

Exit status 1 unless the verdict is ready or no-gpu, 2 if there is no status: not in a VM that this init booted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="read this status instead of asking PID 1, - for stdin")
    parser.add_argument("--socket", metavar="PATH", default=paths.CONTROL, help="where PID 1 answers (%(default)s)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    path, data = (args.file, read_input(args.file)) if args.file else find_status(args.socket, paths.STATUS)
    status = read_as(from_json, path, data)
    out.write(to_json(status).decode() if args.json else show_status(status))
    return 0 if status.verdict in (Verdict.READY, Verdict.NO_GPU) else 1


def find_status(socket: str, file: str) -> tuple[str, bytes]:
    """What PID 1 says now, else what it wrote last; and where that came from."""
    try:
        return socket, ask(socket)
    except OSError:
        return file, read_input(file)
