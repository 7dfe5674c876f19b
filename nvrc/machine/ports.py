# SPDX-License-Identifier: Apache-2.0
"""The port of PID 1's status and that of the metrics: containers share the guest's network and its vsock.

Whoever listens first has a port, and speaks in PID 1's place to the host that asks for the status, or to who reads
metrics. So PID 1 has both before the agent runs, that of the metrics before any daemon, which may use the network but
not vsock. It keeps them for the life of the VM, and hands that of the metrics to each process that serves them. A port
that PID 1 does not get is worth a word, and not the VM.
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


def take_ports(system: Kernel, settings: Settings, metrics: int | None = None) -> tuple[Ports, tuple[Trouble, ...]]:
    """`metrics`: its socket, if that was taken before."""
    status, remarks = -1, []
    if settings.status_port is not None:
        try:
            status = system.listen_vsock(settings.status_port)
        except OSError as err:
            remarks.append(remark(f"PID 1 does not answer on vsock port {settings.status_port}: {err.strerror}"))
    if metrics is None or metrics < 0:
        metrics = take_metrics_port(system, settings)
    return Ports(status, metrics), tuple(remarks)


def take_metrics_port(system: Kernel, settings: Settings) -> int:
    """-1 where it is not asked for or not to be had: the process tries by itself then, and says why it cannot."""
    try:
        return -1 if settings.metrics_port is None else system.listen_tcp(settings.metrics_port)
    except OSError:
        return -1
