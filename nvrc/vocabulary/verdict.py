# SPDX-License-Identifier: Apache-2.0
"""The words for what became of a step and of a boot: one vocabulary for console, report and status."""

from __future__ import annotations

from guest_cdi.lean.light import Enum


class Outcome(Enum):
    """Of a step. The last two exist only while the boot goes on."""

    OK = "ok"
    SKIP = "skip"
    FAIL = "fail"
    WARN = "warn"
    RUNNING = "running"
    PENDING = "pending"


class Verdict(Enum):
    """Of a boot, and then of the VM. `ready` is about GPUs: a machine without any is `no-gpu`."""

    BOOTING = "booting"
    READY = "ready"
    NO_GPU = "no-gpu"
    DEGRADED = "degraded"
    FAILED = "failed"
