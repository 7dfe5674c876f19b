# SPDX-License-Identifier: Apache-2.0
"""Memory of PID 1 that was needed once: by the boot, and by statuses since.

The interpreter keeps 2000 free tuples of each length for later, and only a full collection lets them go. A status
makes some that end with another length than they began with, so that many would grow PID 1 by hundreds of KiB.
"""

from __future__ import annotations

import gc

from guest_cdi.lean import kernel


def give_back() -> None:
    gc.collect()
    kernel.give_back()
