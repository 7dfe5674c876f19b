# SPDX-License-Identifier: Apache-2.0
"""The port of PID 1's status and that of the metrics: containers share the guest's network and its vsock.

Whoever listens first has a port, and speaks in PID 1's place to the host that asks for the status, or to who reads
metrics. So PID 1 has both before the agent runs, keeps them for the life of the VM, and hands that of the metrics to
each process that serves them. A port that PID 1 does not get is worth a word, and not the VM.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, NamedTuple
from nvrc.vocabulary.trouble import Trouble, remark

if TYPE_CHECKING:
    from nvrc.machine.system import Kernel
    from nvrc.params.settings import Settings


class Ports(NamedTuple):
    """Listening sockets; -1 for none."""

    status: int = -1
    metrics: int = -1


def take_ports(system: Kernel, settings: Settings) -> tuple[Ports, tuple[Trouble, ...]]:
    status, metrics, remarks = -1, -1, []
    if settings.status_port is not None:
        try:
            status = system.listen_vsock(settings.status_port)
        except OSError as err:
            remarks.append(remark(f"PID 1 does not answer on vsock port {settings.status_port}: {err.strerror}"))
    if settings.metrics_port is not None:
        try:
            metrics = system.listen_tcp(settings.metrics_port)
        except OSError:
            pass  # the process tries by itself, and says why it cannot
    return Ports(status, metrics), tuple(remarks)
