# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab boot`: one machine from image to verdict, shown as it happens. Exit 0 for READY and an orderly end."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nvrc.vocabulary.output import write_document
from nvrc_lab.commands.order import MEMORY_MIB, Order, add_arguments, read_order
from nvrc_lab.ground.places import Places, checkout
from nvrc_lab.kit.image import BootFiles, build_image, check_agent, check_files, put_agent
from nvrc_lab.qemu.accel import Choice, choose_accel
from nvrc_lab.qemu.cmdline import make_cmdline
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import Qemu, find_qemu
from nvrc_lab.watch.verdict import Judgement, judge
from nvrc_lab.watch.view import choose_view
from nvrc_lab.watch.watch import Limits, Run, record_of, watch

__all__ = ("EXAMPLES", "SUMMARY", "add_arguments", "run")

SUMMARY = "boot one machine and show the boot as it happens"
EXAMPLES = """\
examples:
  nvrc-lab boot                                     one virtual GPU, and a container that sees it: scenario gpu-1
  nvrc-lab boot gpu-8-nvswitch                      another scenario of this checkout: machine, faults, expectation
  nvrc-lab boot ./mine.yaml                         a scenario file from anywhere
  nvrc-lab boot --cmdline "nvrc.log=debug"          with more kernel parameters
  nvrc-lab boot gpu-1 --agent ./kata-agent          with a real agent, which is asked for the container over vsock
  nvrc-lab boot --kernel vmlinuz --initrd initrd    some other image
  nvrc-lab boot --json                              the result for a program

The last line of a scenario is the path of its timeline, a picture. The console, whose path is above it, can be given to
'nvrc report' and 'nvrc doctor'.
"""


def run(args: argparse.Namespace) -> int:
    order, places = read_order(args), checkout()
    qemu = find_qemu()
    if order.scenario is not None:
        from nvrc_lab.commands.rehearsal import rehearse  # noqa: PLC0415  (only a scenario needs it)

        return rehearse(order.scenario, order, qemu, places)
    choice = _choose(order, qemu, places)
    if order.agent is not None:
        check_agent(order.agent)
    files = _find_files(order)
    _say(f"accelerator: {choice.accel.value} ({choice.reason})", order)
    name = f"boot-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    scratch = places.runs / name
    try:
        if order.agent is not None and order.initrd is not None:
            files = put_agent(files, order.agent, scratch)
        console = order.console or places.runs / f"{name}.console"
        machine = replace(make_machine(order, files), console=console)
        return _boot(order, make_argv(machine, qemu.program, choice.accel), console, choice)
    finally:
        _drop(scratch)


def make_machine(order: Order, files: BootFiles) -> Machine:
    return Machine(kernel=files.kernel, initrd=files.initrd, memory_mib=order.memory_mib or MEMORY_MIB,
                   cpus=order.cpus or 1,
                   cmdline=make_cmdline(order.cmdline, has_standin=order.agent is None))


def _choose(order: Order, qemu: Qemu, places: Places) -> Choice:
    if order.accel is not None:
        return Choice(accel=order.accel, reason="asked for by --accel")
    return choose_accel(qemu, places.accel)


def _find_files(order: Order) -> BootFiles:
    if order.kernel is None or order.initrd is None:
        return build_image(agent=order.agent, wait_s=order.wait_s)
    files = BootFiles(kernel=order.kernel, initrd=order.initrd)
    check_files(files)
    return files


def _boot(order: Order, argv: tuple[str, ...], console: Path, choice: Choice) -> int:
    view = choose_view(sys.stdout, is_json=order.is_json, everything=order.everything)
    limits = Limits(total_s=order.timeout_s, linger_s=order.linger_s)
    outcome = watch(argv, console, limits, view.update, record=record_of(console))
    judgement = judge(outcome, has_host_clock=choice.accel is not Accel.COUNTED)
    view.finish(outcome, judgement)
    if order.is_json:
        write_document(sys.stdout, as_json(outcome, judgement, choice))
    return 0 if judgement.is_good else 1


def as_json(run: Run, judgement: Judgement, choice: Choice) -> Mapping[str, object]:
    ready, story = run.story.ready, run.story
    return {
        "ok": judgement.is_good, "verdict": "ready" if ready else "failed", "code": judgement.code,
        "what": judgement.what, "hint": judgement.hint, "seconds": round(run.seconds, 3),
        "boot_seconds": ready.seconds if ready else None, "mode": ready.mode if ready else None,
        "gpus": ready.gpus if ready else None, "cdi": ready.cdi if ready else None,
        "kernel_seconds": story.kernel_s, "warnings": list(story.warnings),
        "steps": [{"name": step.line.name, "outcome": step.line.outcome, "seconds": step.line.seconds,
                   "detail": step.line.detail, "heard_at": round(step.heard_s, 3)} for step in story.steps],
        "accel": choice.accel.value, "accel_reason": choice.reason, "console": str(run.console),
    }


def _say(line: str, order: Order) -> None:
    print(line, file=sys.stderr if order.is_json else sys.stdout, flush=True)


def _drop(folder: Path) -> None:
    """The image with a foreign agent is as big as the image itself and of no use afterwards."""
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        path.unlink()
    if folder.is_dir():
        folder.rmdir()
