# SPDX-License-Identifier: Apache-2.0
"""Memory of PID 1 that was needed once: by the boot, and by statuses since.

While it boots, PID 1 has the collector look seldom (the frozen program's entry): a full collection takes 3 ms, and came
where it liked. From the first giving back on it is as often as the interpreter does by itself.

The interpreter keeps 2000 free tuples of each length for later, and only a full collection lets them go. A status
makes some that end with another length than they began with, so that many would grow PID 1 by hundreds of KiB.
"""

from __future__ import annotations

import gc

from guest_cdi.lean import kernel

OBJECTS = 2000  # more than were let go, between two collections: what the frozen interpreter begins with


def give_back() -> None:
    gc.collect()
    gc.set_threshold(OBJECTS)
    kernel.give_back()
