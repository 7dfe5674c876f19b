# SPDX-License-Identifier: Apache-2.0
"""Questions to NVIDIA's library, as a boot asks them."""

from __future__ import annotations

from nvrc.engine.facts import Facts, known
from nvrc.nvml.client import Client


def client_of(facts: Facts) -> Client:
    """The worker that `device-nodes` started, with as much patience as this machine's GPUs need."""
    return Client(known(facts.worker, "device-nodes"), facts.nvml_patience_s)
