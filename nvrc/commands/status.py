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
from nvrc.vocabulary.terminal import width_of
from nvrc.vocabulary.verdict import Verdict

PORT = 1030
NAME = "status"
HELP = "show the live state: verdict, services, GPUs"
EPILOG = """\
examples:
  nvrc status                  in the VM: PID 1 is asked, or what it wrote last is read
  nvrc status --json           for machines
  nvrc status --file saved.json
  nvrc status --vm 3456789012                    on the host: the VM of this vsock context id
  nvrc status --vm /run/kata/ID/kata.hvsock     the same, by the socket of a hybrid vsock

Exit status 1 unless the verdict is ready or no-gpu, 2 if there is no status: not in a VM that this init booted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="read this status instead of asking PID 1, - for stdin")
    parser.add_argument("--socket", metavar="PATH", default=paths.CONTROL, help="where PID 1 answers (%(default)s)")
    parser.add_argument("--vm", metavar="SOCKET|CID", help="on the host: ask this VM, if nvrc.status.vsock is on")
    parser.add_argument("--port", type=int, default=PORT, help="with --vm: what nvrc.status.vsock is (%(default)s)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    path, data = _read(args)
    status = read_as(from_json, path, data)
    out.write(to_json(status).decode() if args.json else show_status(status, width_of(out)))
    return 0 if status.verdict in (Verdict.READY, Verdict.NO_GPU) else 1


def _read(args: argparse.Namespace) -> tuple[str, bytes]:
    if args.vm:
        from nvrc.machine.outside import ask_vm

        return args.vm, ask_vm(args.vm, args.port)
    return (args.file, read_input(args.file)) if args.file else find_status(args.socket, paths.STATUS)


def find_status(socket: str, file: str) -> tuple[str, bytes]:
    """What PID 1 says now, else what it wrote last; and where that came from."""
    try:
        return socket, ask(socket)
    except OSError:
        return file, read_input(file)
