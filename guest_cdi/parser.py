# SPDX-License-Identifier: Apache-2.0
"""The commands' parser, and errors as documents: with --json on the line, what is wrong with the line is one, too.

Every document of a command has `schema`; what is unset is null.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn, TextIO

from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Sequence

SCHEMA = 1
USAGE = 2


class Parser(argparse.ArgumentParser):
    def __init__(self, name: str, description: str, epilog: str, argv: Sequence[str]) -> None:
        super().__init__(prog=f"guest-cdi {name}", description=description, epilog=epilog, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._as_json = "--json" in argv

    def error(self, message: str) -> NoReturn:
        if not self._as_json:
            super().error(message)
        write_error(CdiError("E_CDI_USAGE", message), sys.stderr)
        raise SystemExit(USAGE)


def write_error(err: CdiError, out: TextIO) -> None:
    write_json({"schema": SCHEMA, "code": err.code, "what": err.what, "hint": err.hint or None}, out)


def write_json(value: object, out: TextIO) -> None:
    import json

    print(json.dumps(value), file=out)
