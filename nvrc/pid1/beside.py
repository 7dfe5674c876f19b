# SPDX-License-Identifier: Apache-2.0
"""Starts the agent beside the pod once the machine is ready. Loaded only where `nvrc.metrics` asks for it; what it is
and does lies in nvrc/beside, which PID 1 never loads.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, replace
from nvrc.machine.privileges import METRICS_ACCOUNT
from nvrc.services.table import METRICS, Running, start
from nvrc.vocabulary import paths

if TYPE_CHECKING:
    from nvrc.engine.facts import Facts
    from nvrc.machine.system import System


def start_metrics(system: System, facts: Facts) -> Running:
    """NvrcError where it cannot be started. Nothing is waited for: when it is ready is its own affair."""
    service = METRICS
    if facts.on_bus:
        from nvrc.services.persistence import as_whom  # loaded already

        service = as_whom(system, METRICS)
    if facts.ports is not None:
        service = replace(service, input=facts.ports.metrics)
    _give(system)
    port = str(facts.settings.metrics_port)
    values = {"port": port, "driver_root": facts.driver_root,
              "gpus": "yes" if facts.on_bus else "", "serials": _serials(facts)}
    since_s = system.now()
    program, pid = start(system, service, "", lambda _pid, _status: None, values)
    return Running(service=service, program=program, started_pid=pid, pid=pid, since_s=since_s,
                   about=f"port {port}")


def _serials(facts: Facts) -> str:
    """As the boot found them: one that is started again after a GPU fell off the bus can ask the library no more. They
    come out of the process with NVIDIA's library, and are nothing but a word here."""
    return ",".join(f"{gpu.bdf}={gpu.serial}" for gpu in facts.gpus or ()
                    if gpu.bdf and gpu.serial.isascii() and gpu.serial.isalnum())


def _give(system: System) -> None:
    """What it reads of PID 1, to its group: the report, which is written no more until the end, and the socket."""
    for path, mode in ((paths.REPORT, 0o640), (paths.CONTROL, 0o660)):
        try:
            system.set_owner(path, 0, METRICS_ACCOUNT.gid, mode)
        except OSError:
            pass  # where /run is full there is none; the metrics say so
