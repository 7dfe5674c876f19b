# SPDX-License-Identifier: Apache-2.0
"""`nvrc version`, and what `nvrc` alone prints."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TextIO

import nvrc
from nvrc.vocabulary.identity import EXECUTABLE, identity_line, program_hash
from nvrc.vocabulary.output import write_document

NAME = "version"
HELP = "say which program this is"
EPILOG = """\
examples:
  nvrc                    the same
  nvrc version --json     for machines

The hash covers the running file and the bundle beside it; it is 'unknown' where /proc is not mounted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    sha256 = own_hash()
    if args.json:
        write_document(out, {"version": nvrc.__version__, "sha256": sha256})
    else:
        print(identity_line(sha256), file=out)
    return 0


FROZEN_IN = sys.prefix if getattr(sys, "frozen", False) else None


def own_hash(executable: str = EXECUTABLE, bundle: str | None = FROZEN_IN) -> str:
    """`bundle` is where a frozen program's files lie; None in a checkout."""
    if bundle is not None:
        return program_hash(executable, bundle)
    return program_hash(executable, os.path.dirname(nvrc.__file__), ".py")
