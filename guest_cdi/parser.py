# SPDX-License-Identifier: Apache-2.0
"""The commands' parser, and errors as documents: with --json on the line, what is wrong with the line is one, too.

Every document of a command has `schema`; what is unset is null.
"""

from __future__ import annotations

import argparse
import sys

from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import NoReturn, Sequence, TextIO

SCHEMA = 1
USAGE = 2


class Parser(argparse.ArgumentParser):
    def __init__(self, name: str, description: str, epilog: str, argv: Sequence[str]) -> None:
        super().__init__(prog=f"guest-cdi {name}", description=description, epilog=epilog, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._as_json = "--json" in argv

    def _print_message(self, message: str, file: object = None) -> None:
        """argparse passes over help that nobody took."""
        if message and file is sys.stdout:
            print(message, end="")
        else:
            super()._print_message(message, sys.stderr)

    def error(self, message: str) -> NoReturn:
        message = _name_choice(message)
        if not self._as_json:
            super().error(message)
        write_error(CdiError("E_CDI_USAGE", message), sys.stderr)
        raise SystemExit(USAGE)


def _name_choice(message: str) -> str:
    """argparse's own words, with the value that was probably meant."""
    import re
    from difflib import get_close_matches

    found = re.match(r"argument .+: invalid choice: '([^']*)' \(choose from (.*)\)", message)
    near = get_close_matches(found[1], re.findall(r"[\w.-]+", found[2]), n=1) if found else []
    return f"{message}, did you mean {near[0]}?" if near else message


def write_error(err: CdiError, out: TextIO) -> None:
    write_json({"schema": SCHEMA, "code": err.code, "what": err.what, "hint": err.hint or None}, out)


def write_json(value: object, out: TextIO) -> None:
    import json

    print(json.dumps(value), file=out)
