# SPDX-License-Identifier: Apache-2.0
"""THE table of metrics, and their text as Prometheus reads it (exposition format 0.0.4).

Rules, dashboard and docs/metrics.md name nothing that has no row here. A sample of an unknown family is a mistake of
the program; a value that the source did not give is left out, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

GAUGE, COUNTER = "gauge", "counter"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GPU = ("gpu", "bus_id", "serial")


class Family(NamedTuple):
    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    family: str
    value: float
    labels: tuple[str, ...] = ()


FAMILIES: tuple[Family, ...] = (
    # The machine, as PID 1 tells it
    Family("nvrc_build_info", GAUGE, "The init that booted this VM; always 1.", ("program", "mode")),
    Family("nvrc_verdict", GAUGE, "1 for the verdict of the VM, 0 for each other.", ("verdict",)),
    Family("nvrc_pid1_up", GAUGE, "1 while PID 1 answers on its control socket."),
    Family("nvrc_pid1_resident_bytes", GAUGE, "Resident memory of PID 1."),
    Family("nvrc_orphans_reaped_total", COUNTER, "Orphans that PID 1 has reaped."),
    Family("nvrc_log_messages_total", COUNTER, "Messages that PID 1's journal has taken."),
    Family("nvrc_log_dropped_total", COUNTER, "Messages that did not fit into the log file."),
    Family("nvrc_boot_seconds", GAUGE, "From the start of PID 1 to the end of the boot's last step."),
    Family("nvrc_boot_step_seconds", GAUGE, "How long a step of the boot took.", ("step",)),
    Family("nvrc_boot_step_waited_seconds", GAUGE, "How long a step waited for driver, daemon or library.", ("step",)),
    Family("nvrc_trouble", GAUGE, "1 for each trouble that PID 1 has told.", ("code", "step", "service", *GPU[:2])),
    Family("nvrc_service_up", GAUGE, "1 while a service runs.", ("service",)),
    Family("nvrc_service_restarts_total", COUNTER, "How often a service was restarted.", ("service",)),
    # GPUs, as PID 1 tells them
    Family("nvrc_gpu_state", GAUGE, "1 for the state of a GPU, 0 for each other.", (*GPU, "state")),
    Family("nvrc_gpu_attach_seconds", GAUGE, "How long nvidia-persistenced took to attach a GPU.", GPU),
    Family("nvrc_gpu_xid_total", COUNTER, "Xid lines of the driver about a GPU.", (*GPU, "xid")),
    Family("nvrc_confidential_mode", GAUGE, "1 for the confidential mode that the boot found.", ("mode",)),
    # GPUs, as NVIDIA's library tells them
    Family("nvrc_nvml_up", GAUGE, "1 while NVIDIA's library answers."),
    Family("nvrc_nvml_sample_age_seconds", GAUGE, "Age of what NVIDIA's library told last."),
    Family("nvrc_nvml_failures_total", COUNTER, "Questions to NVIDIA's library that hung or failed as a whole."),
    Family("nvrc_gpu_info", GAUGE, "A GPU and its driver; always 1.", (*GPU, "name", "driver")),
    Family("nvrc_gpu_up", GAUGE, "1 while NVIDIA's library answers for a GPU.", GPU),
    Family("nvrc_gpu_clock_hertz", GAUGE, "Current clock.", (*GPU, "clock")),
    Family("nvrc_gpu_power_watts", GAUGE, "Power that a GPU draws.", GPU),
    Family("nvrc_gpu_power_limit_watts", GAUGE, "Power limit in force.", GPU),
    Family("nvrc_gpu_temperature_celsius", GAUGE, "Temperature of the GPU's die.", GPU),
    Family("nvrc_gpu_utilisation_ratio", GAUGE, "Part of the last sample period in which a kernel ran.", GPU),
    Family("nvrc_gpu_memory_bytes", GAUGE, "Memory of a GPU: total, used, free.", (*GPU, "kind")),
    Family("nvrc_gpu_ecc_errors_total", COUNTER, "ECC errors since the driver was loaded.", (*GPU, "kind")),
    Family("nvrc_gpu_nvlinks_up", GAUGE, "NVLinks that are up.", GPU),
    Family("nvrc_gpu_nvlinks_down", GAUGE, "NVLinks that are down.", GPU),
    Family("nvrc_gpu_fabric_state", GAUGE, "1 for the registration with the NVLink fabric, 0 for each other.",
           (*GPU, "state")),
    Family("nvrc_gpus_ready", GAUGE, "1 while confidential GPUs accept work (the ready state)."),
    Family("nvrc_cc_feature", GAUGE, "1 while the confidential feature of the GPUs is on."),
    Family("nvrc_ready_state", GAUGE, "1 for what became of the ready state, as PID 1 has it.", ("state",)),
    # The guest
    Family("nvrc_guest_processes", GAUGE, "Processes of the guest, containers included."),
    Family("nvrc_guest_boot_time_seconds", GAUGE, "When the guest's kernel started, in seconds of the epoch."),
    Family("nvrc_guest_cpu_seconds_total", COUNTER, "Processor time of the guest.", ("mode",)),
    Family("nvrc_guest_memory_bytes", GAUGE, "Memory of the guest: total, available.", ("kind",)),
    Family("nvrc_guest_memory_pressure_seconds_total", COUNTER,
           "Time in which some or all tasks waited for memory (PSI).", ("tasks",)),
    Family("nvrc_guest_memory_pressure_ratio", GAUGE, "The same over the last 10 seconds.", ("tasks",)),
    Family("nvrc_guest_oom_kills_total", COUNTER, "Processes that the kernel killed for memory."),
    Family("nvrc_guest_disk_bytes", GAUGE, "Size of file systems: total, used.", ("mount", "kind")),
    Family("nvrc_guest_disk_io_bytes_total", COUNTER, "Bytes of block devices.", ("disk", "direction")),
    Family("nvrc_service_resident_bytes", GAUGE, "Resident memory of a service's process.", ("service",)),
    Family("nvrc_service_cpu_seconds_total", COUNTER, "Processor time of a service's process.", ("service",)),
    Family("nvrc_link_up", GAUGE, "1 while a network link is up.", ("link",)),
    Family("nvrc_link_changes_total", COUNTER, "How often the kernel told that a link changed.", ("link",)),
    Family("nvrc_link_bytes_total", COUNTER, "Bytes of a network link.", ("link", "direction")),
    Family("nvrc_link_errors_total", COUNTER, "Errors of a network link.", ("link", "direction")),
    Family("nvrc_link_addresses", GAUGE, "Addresses of a network link.", ("link",)),
    Family("nvrc_routes", GAUGE, "Routes of the guest, by family.", ("family",)),
    Family("nvrc_default_route", GAUGE, "1 while the guest has a default route."),
    # This process
    Family("nvrc_metrics_resident_bytes", GAUGE, "Resident memory of the process that serves this."),
    Family("nvrc_metrics_cpu_seconds_total", COUNTER, "Processor time of the process that serves this."),
    Family("nvrc_metrics_scrapes_total", COUNTER, "Answers to scrapes."),
    Family("nvrc_metrics_refused_total", COUNTER, "Connections that were closed: too many, too slow, or not HTTP."),
    Family("nvrc_metrics_source_failures_total", COUNTER, "Sources that failed while they were read.", ("source",)),
)
BY_NAME = {family.name: family for family in FAMILIES}


def render(samples: Iterable[Sample]) -> bytes:
    """In the order of the table; each family once, a series once. KeyError for a family without a row."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for name, value, labels in samples:
        if len(labels) != len(BY_NAME[name].labels):
            raise ValueError(f"{name} has the labels {BY_NAME[name].labels}, not {len(labels)}")
        found.setdefault(name, {})[labels] = value
    lines = []
    for family in FAMILIES:
        series = found.get(family.name)
        if series:
            lines += [f"# HELP {family.name} {_escape(family.help)}", f"# TYPE {family.name} {family.kind}"]
            lines += [f"{family.name}{_labels(family, labels)} {_number(value)}" for labels, value in series.items()]
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _labels(family: Family, values: tuple[str, ...]) -> str:
    pairs = ",".join(f'{name}="{_quote(value)}"' for name, value in zip(family.labels, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', r"\"").encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(float(value))
