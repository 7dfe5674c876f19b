# SPDX-License-Identifier: Apache-2.0
"""The guest as psutil and /proc tell it: processes, processors, memory and its pressure, OOM kills, disks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nvrc.beside.families import Sample

PRESSURE, VMSTAT = "/proc/pressure/memory", "/proc/vmstat"
# Nothing of a container's own: those come and go, and kata-monitor has them.
FILE_SYSTEMS = ("/", "/run", "/run/kata-containers")
CPU_MODES = ("user", "system", "idle", "iowait", "steal")


def of_guest() -> Iterator[Sample]:
    import psutil

    yield Sample("nvrc_guest_processes", len(psutil.pids()))
    yield Sample("nvrc_guest_boot_time_seconds", psutil.boot_time())
    times = psutil.cpu_times()
    for mode in CPU_MODES:
        yield Sample("nvrc_guest_cpu_seconds_total", getattr(times, mode, 0.0), (mode,))
    memory = psutil.virtual_memory()
    yield Sample("nvrc_guest_memory_bytes", memory.total, ("total",))
    yield Sample("nvrc_guest_memory_bytes", memory.available, ("available",))


def of_disks() -> Iterator[Sample]:
    import psutil

    for mount in FILE_SYSTEMS:
        try:
            usage = psutil.disk_usage(mount)
        except OSError:
            continue
        yield Sample("nvrc_guest_disk_bytes", usage.total, (mount, "total"))
        yield Sample("nvrc_guest_disk_bytes", usage.used, (mount, "used"))
    for disk, io in (psutil.disk_io_counters(perdisk=True, nowrap=False) or {}).items():
        yield Sample("nvrc_guest_disk_io_bytes_total", io.read_bytes, (disk, "read"))
        yield Sample("nvrc_guest_disk_io_bytes_total", io.write_bytes, (disk, "written"))


def of_services(pids: Mapping[str, int]) -> Iterator[Sample]:
    import psutil

    for service, pid in pids.items():
        try:
            process = psutil.Process(pid)
            memory, times = process.memory_info(), process.cpu_times()
        except psutil.Error:
            continue
        yield Sample("nvrc_service_resident_bytes", memory.rss, (service,))
        yield Sample("nvrc_service_cpu_seconds_total", times.user + times.system, (service,))


def of_self() -> Iterator[Sample]:
    import psutil

    own = psutil.Process()
    times = own.cpu_times()
    yield Sample("nvrc_metrics_resident_bytes", own.memory_info().rss)
    yield Sample("nvrc_metrics_cpu_seconds_total", times.user + times.system)


def of_memory_kills(path: str = VMSTAT) -> Iterator[Sample]:
    with open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("oom_kill "):
                yield Sample("nvrc_guest_oom_kills_total", int(line.split()[1]))


def of_pressure(path: str = PRESSURE) -> Iterator[Sample]:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; nothing on a kernel without PSI."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        tasks, *pairs = line.split()
        found = dict(pair.partition("=")[::2] for pair in pairs)
        yield Sample("nvrc_guest_memory_pressure_ratio", float(found["avg10"]) / 100, (tasks,))
        yield Sample("nvrc_guest_memory_pressure_seconds_total", int(found["total"]) / 1e6, (tasks,))
