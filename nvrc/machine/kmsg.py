# SPDX-License-Identifier: Apache-2.0
"""The kernel's ring buffer, record by record; Documentation/ABI/testing/dev-kmsg."""

from __future__ import annotations

import os

from guest_cdi.lean.light import Iterator


def records(path: str) -> Iterator[bytes]:
    """What it holds now, oldest first; nothing where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while record := os.read(descriptor, 8192):
            yield record
    except OSError:
        return  # BlockingIOError: that was the newest; BrokenPipeError: overwritten while reading
    finally:
        os.close(descriptor)
