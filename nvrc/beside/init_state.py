# SPDX-License-Identifier: Apache-2.0
"""What PID 1 tells of itself, as samples: the live status of its control socket, and the report of the boot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nvrc.beside.families import Sample
from nvrc.report.report import Report
from nvrc.report.status import ServiceState, Status
from nvrc.vocabulary.gpu import GpuState
from nvrc.vocabulary.verdict import Verdict

ALIVE = (ServiceState.RUNNING, ServiceState.STARTING)


def of_status(status: Status, serials: Mapping[str, str]) -> Iterator[Sample]:
    yield Sample("nvrc_pid1_up", 1)
    yield Sample("nvrc_build_info", 1, (status.program, status.mode))
    for verdict in Verdict:
        yield Sample("nvrc_verdict", status.verdict is verdict, (verdict.value,))
    if status.resident_kib is not None:
        yield Sample("nvrc_pid1_resident_bytes", status.resident_kib * 1024)
    yield Sample("nvrc_orphans_reaped_total", status.orphans_reaped)
    yield Sample("nvrc_log_messages_total", status.log_messages)
    yield Sample("nvrc_log_dropped_total", status.log_dropped)
    for service in status.services:
        yield Sample("nvrc_service_up", service.state in ALIVE, (service.name,))
        yield Sample("nvrc_service_restarts_total", service.restarts, (service.name,))
    for trouble in (*((status.failure,) if status.failure else ()), *status.troubles, *status.degraded_by):
        yield Sample("nvrc_trouble", 1, (trouble.code, trouble.step, trouble.service, trouble.uuid, trouble.gpu))
    if status.ready:
        yield Sample("nvrc_ready_state", 1, (status.ready,))
    yield from _gpus(status, serials)


def _gpus(status: Status, serials: Mapping[str, str]) -> Iterator[Sample]:
    for gpu in status.gpus:
        place = (gpu.uuid, gpu.bdf, serials.get(gpu.bdf, ""))
        for state in GpuState:
            yield Sample("nvrc_gpu_state", gpu.state is state, (*place, state.value))
        if gpu.seconds is not None:
            yield Sample("nvrc_gpu_attach_seconds", gpu.seconds, place)
    uuids = {gpu.bdf: gpu.uuid for gpu in status.gpus}
    for xid in status.xids:
        place = (uuids.get(xid.gpu, ""), xid.gpu, serials.get(xid.gpu, ""))
        yield Sample("nvrc_gpu_xid_total", xid.count, (*place, str(xid.number)))


def of_report(report: Report) -> Iterator[Sample]:
    if report.ended_s is not None:
        yield Sample("nvrc_boot_seconds", report.ended_s - report.started_s)
    for step in report.steps:
        if step.start_s is not None and step.end_s is not None:
            yield Sample("nvrc_boot_step_seconds", step.end_s - step.start_s, (step.name,))
        if step.waited_s is not None:
            yield Sample("nvrc_boot_step_waited_seconds", step.waited_s, (step.name,))
    if report.confidential is not None:
        yield Sample("nvrc_confidential_mode", 1, (report.confidential.mode,))
