# SPDX-License-Identifier: Apache-2.0
"""The commands' parser: with --json on the line, what is wrong with the line is a document, too."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from guest_cdi.errors import CdiError
from guest_cdi.lean.light import Sequence
from guest_cdi.report import write_error

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
