# SPDX-License-Identifier: Apache-2.0
"""docs/failure-signatures.md from the table; `python -m nvrc.pages.signatures` prints it. Off the boot path."""

from __future__ import annotations

import sys

from nvrc.pid1.health import FAULTS
from nvrc.services.signatures import SIGNATURES

_HEAD = """\
# Failure signatures

<!-- Written by `python -m nvrc.pages.signatures`; edit nvrc/services/signatures.py and nvrc/pid1/health.py instead. -->

What lines of NVIDIA's driver and daemons mean. When a step fails, the lines that came since it began are searched for
these words, the first row that fits counts, and its cause and remedy become the hint of the verdict line. A line alone
never fails a step. All words of a row must occur, in one line or in several. A row without a code leaves the
failure the code of its step, see [failure-codes.md](failure-codes.md).
"""

_XIDS = """\
## Xids

After the boot the kernel's Xid lines become GPU health in `/run/nvrc/status.json`, told once for each GPU and number.
These take a GPU out of service; 79 is `E_GPU_LOST`, the others are `E_GPU_FAULT`. All other numbers, among them those
that a workload's own errors cause, are told and change nothing.
"""


def render() -> str:
    lines = [_HEAD]
    for source in dict.fromkeys(row.source for row in SIGNATURES):
        lines += [f"## {source[0].upper()}{source[1:]}\n",
                  "| signature | words | code | cause | what to do | who acts |",
                  "| --- | --- | --- | --- | --- | --- |"]
        for row in (row for row in SIGNATURES if row.source == source):
            words = "<br>".join(f"`{word}`" for word in row.words)
            code = f"`{row.code}`" if row.code else ""
            lines.append(f"| {row.name} | {words} | {code} | {row.cause} | {row.remedy} | {row.who} |")
        lines.append("")
    xids = (f"| {number} | {text} |" for number, text in FAULTS.items())
    lines += [_XIDS, "| Xid | meaning |", "| --- | --- |", *xids]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
