# SPDX-License-Identifier: Apache-2.0
"""Report and status as text for a terminal. Whatever a guest wrote is shown printable, never interpreted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nvrc.boot import BOOT
from nvrc.report.critical_path import own_seconds
from nvrc.report.networks import nic_row
from nvrc.report.report import Report, Role, StepRecord
from nvrc.report.status import Status
from nvrc.vocabulary.console import headline, printable, sentence
from nvrc.vocabulary.gpu import GpuRecord
from nvrc.vocabulary.terminal import UNLIMITED, flow, lay_table
from nvrc.vocabulary.trouble import Trouble

_DEFAULT_SOURCE = "default"


def show_report(report: Report, width: int = UNLIMITED) -> str:
    inner = inside(width)
    lines = [_headline(report.program, report.verdict.value, report.mode), timing(report), ""]
    lines += align([("step", "outcome", "start", "seconds", "waited", "detail"),
                    *(_step_row(step, report.started_s) for step in report.steps)], width, has_heads=True)
    if report.failure:
        lines += ["", *_failure(report.failure)]
    lines += section("beside the steps", align([
        (span.name, f"{span.start_s - report.started_s:+.3f}", f"{span.end_s - span.start_s:.3f} s")
        for span in report.beside], inner))
    lines += section("GPUs", align(list(map(_gpu_row, report.gpus)), inner))
    lines += section("NICs", align(list(map(nic_row, report.nics)), inner))
    lines += section("NVLink fabric", align([
        (row.gpu, row.state, row.status, f"clique {row.clique}", row.cluster) for row in report.fabric], inner))
    lines += section("PCI functions that decide the mode", align([
        (f.role.value, f.bdf, f"{f.ids} class {f.pci_class}")
        for f in report.topology if f.role is not Role.OTHER], inner))
    lines += section("parameters that were set", align(
        [(p.name, p.value, f"({p.source})") for p in report.parameters if p.source != _DEFAULT_SOURCE], inner))
    lines += section("policy of the image", [f"sha256 {printable(report.policy)}"] if report.policy else [])
    lines += _findings(report, inner)
    lines += _told(report)
    lines += section("last log lines", map(printable, report.log))
    return flow("\n".join(lines) + "\n", width)


def show_status(status: Status, width: int = UNLIMITED) -> str:
    inner = inside(width)
    lines = [_headline(status.program, status.verdict.value, status.mode),
             f"as of {status.updated_s:.3f} s after the kernel started; {status.orphans_reaped} orphans reaped, "
             f"{status.log_messages} log messages, {status.log_dropped} dropped"
             + ("" if status.resident_kib is None else f", {status.resident_kib} KiB resident")]
    if status.failure:
        lines += ["", *_failure(status.failure)]
    lines += section("degraded by", [line for trouble in status.degraded_by for line in _failure(trouble)])
    lines += section("services", align([
        (s.name, s.state.value, f"pid {s.pid}" if s.pid is not None else "", f"{s.restarts} restarts",
         f"since {s.since_s:.3f} s", s.detail) for s in status.services], inner))
    lines += section("GPUs", align(list(map(_gpu_row, status.gpus)), inner))
    lines += _told(status)
    return flow("\n".join(lines) + "\n", width)


def timing(report: Report) -> str:
    """Where the time went: kernel, interpreter, own work. What is not known is not shown."""
    interpreter = report.interpreter_s or 0.0
    parts = [f"kernel {report.started_s - interpreter:.3f} s"]
    if report.interpreter_s is not None:
        parts.append(f"interpreter {interpreter:.3f} s")
    if report.ended_s is not None:
        processor = "" if report.cpu_s is None else f" ({report.cpu_s:.3f} s of processor time)"
        parts.append(f"boot {report.ended_s - report.started_s:.3f} s{processor}")
    own_s = own_seconds(report, {step.name: step.needs for step in BOOT})
    if own_s is not None:
        parts.append(f"of it {own_s:.3f} s own work on the longest chain of steps, the rest waiting for others")
    if report.resident_kib is not None:
        parts.append(f"{report.resident_kib} KiB resident")
    return ", ".join(parts)


def align(rows: Sequence[tuple[str, ...]], width: int = UNLIMITED, *, has_heads: bool = False) -> list[str]:
    """A table of what others wrote."""
    return lay_table([[printable(cell) for cell in row] for row in rows], width, has_heads=has_heads)


def inside(width: int) -> int:
    """Of a section."""
    return width and width - 2


def _headline(program: str, verdict: str, mode: str) -> str:
    return printable(f"{program}: {verdict}" + (f", mode {mode}" if mode else ""))


def _step_row(step: StepRecord, started_s: float) -> tuple[str, ...]:
    start = "" if step.start_s is None else f"{step.start_s - started_s:+.3f}"
    took = "" if step.start_s is None or step.end_s is None else f"{step.end_s - step.start_s:.3f}"
    waited = "" if step.waited_s is None else f"{step.waited_s:.3f}"
    return step.name, step.outcome.value, start, took, waited, ": ".join(filter(None, (step.code, step.detail)))


def _gpu_row(gpu: GpuRecord) -> tuple[str, ...]:
    return gpu.bdf, gpu.state.value, "" if gpu.seconds is None else f"{gpu.seconds:.3f} s", gpu.uuid, gpu.code


def _findings(report: Report, inner: int) -> list[str]:
    """What the boot found out about its GPUs, and made of them."""
    lines = section("GPU settings", align([
        (row.gpu, f"{row.name}={row.asked}", "" if row.got in (None, row.asked) else f"reads {row.got}")
        for row in report.settings], inner))
    lines += section("MIG", align([
        (row.gpu, "made" if row.changed else "as it was", ", ".join(row.profiles) or "off")
        for row in report.mig], inner))
    rows = []
    if report.confidential:
        rows.append(("confidential mode", f"{report.confidential.mode}: {report.confidential.why}"))
    if report.cdi:
        made = report.cdi
        rows.append(("CDI document", f"version {made.version}, driver {made.driver}: {made.devices} devices, "
                                     f"{made.nodes} nodes, {made.mounts} mounts, {made.hooks} hooks"))
        rows += [("not in it", text) for text in (*made.left_out, *made.missing)]
    if report.ready:
        accepts = "the GPUs accept work" if report.ready.accepts else "the GPUs accept no work"
        rows.append(("ready state", f"{report.ready.outcome}, {accepts}: {report.ready.why}"))
    return lines + section("found", align(rows, inner))


def _told(document: Report | Status) -> list[str]:
    lines = section("troubles", [printable(sentence(one)) for one in document.troubles])
    return lines + section("notes", map(printable, document.notes))


def _failure(failure: Trouble) -> Iterator[str]:
    yield printable(headline(failure))
    yield printable(f"  {failure.hint}")


def section(title: str, lines: Iterable[str]) -> list[str]:
    """A titled block, absent when it has no lines."""
    body = [f"  {line}" for line in lines]
    return ["", f"{title}:", *body] if body else []
