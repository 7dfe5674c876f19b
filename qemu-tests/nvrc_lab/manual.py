# SPDX-License-Identifier: Apache-2.0
"""Manual pages and shell completion of `nvrc-image` and `nvrc-lab`, written, or with --check compared."""

from __future__ import annotations

import sys

from nvrc.vocabulary.completion import pages_of
from nvrc.vocabulary.manual import describe, keep
from nvrc_build import cli as image
from nvrc_lab import __main__ as lab

IMAGE = describe("nvrc-image", "0 done, 1 a finding or failure, 2 the call was wrong.", image.make_parser())
LAB = describe("nvrc-lab", "0 good, 1 a finding, 2 wrong use or something missing on this machine.", lab.make_parser())

if __name__ == "__main__":
    sys.exit(keep([*pages_of(IMAGE), *pages_of(LAB)], sys.argv[1:]))
