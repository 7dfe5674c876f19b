# SPDX-License-Identifier: Apache-2.0
"""The ready state of confidential GPUs: whether they accept work. One flag for the whole machine. Child side.

The driver takes "not ready" after "ready" as a revocation and never sets the flag again, so it is read first and only
changed where it differs.
"""

from __future__ import annotations

from guest_cdi.lean.light import Mapping
from guest_cdi.nvml import ask
from nvrc.nvml.session import Session
from nvrc.nvml.worker import Value


def change_keys(session: Session, given: Mapping[str, Value]) -> int:
    """Set the threshold of key rotation; the driver takes it only before the ready state. What it says afterwards."""
    ask(session.library.nvmlSystemSetConfComputeKeyRotationThresholdInfo, given["advantage"])
    return int(ask(session.library.nvmlSystemGetConfComputeKeyRotationThresholdInfo).attackerAdvantage)


def change_state(session: Session, given: Mapping[str, Value]) -> list[bool]:
    """Make the state `ready` unless that is null: what it was, and what it is now."""
    wanted = given["ready"]
    before = bool(ask(session.library.nvmlSystemGetConfComputeGpusReadyState))
    if wanted is None or wanted is before:
        return [before, before]
    ask(session.library.nvmlSystemSetConfComputeGpusReadyState, int(wanted is True))
    return [before, bool(ask(session.library.nvmlSystemGetConfComputeGpusReadyState))]
