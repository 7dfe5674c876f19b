# SPDX-License-Identifier: Apache-2.0
"""A syslog that writes what it hears into a file: Kata's shim does not start on a host without one."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

# The last of the places where Go's syslog looks for it, and the only one below /run.
PATH = Path("/run/log")
LONGEST = 1 << 16


def listen(path: Path) -> socket.socket:
    sink = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink.bind(str(path))
    return sink


def take(sink: socket.socket, descriptor: int) -> None:
    """One message, as one line."""
    os.write(descriptor, sink.recv(LONGEST).rstrip(b"\n\0") + b"\n")


def main(argv: Sequence[str] | None = None) -> None:
    (file,) = sys.argv[1:] if argv is None else argv
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    sink = listen(PATH)
    while True:
        take(sink, descriptor)


if __name__ == "__main__":
    main()
