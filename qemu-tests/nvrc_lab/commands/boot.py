# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab boot`: one machine from image to verdict, shown as it happens. Exit 0 for READY and an orderly end."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places, checkout
from nvrc_lab.kit.image import BootFiles, build_image, check_agent, check_files, put_agent
from nvrc_lab.qemu.accel import Choice, choose_accel
from nvrc_lab.qemu.cmdline import make_cmdline
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import Qemu, find_qemu
from nvrc_lab.watch.verdict import Judgement, judge
from nvrc_lab.watch.view import choose_view
from nvrc_lab.watch.watch import Limits, Run, watch

SUMMARY = "boot one machine and show the boot as it happens"
EXAMPLES = """\
examples:
  nvrc-lab boot                                     build the lab image if needed, boot it, show the steps
  nvrc-lab boot gpu-1                               a scenario of this checkout: machine, faults, expectation
  nvrc-lab boot ./mine.yaml                         a scenario file from anywhere
  nvrc-lab boot --cmdline "nvrc.log=debug"          with further kernel parameters
  nvrc-lab boot gpu-1 --agent ./kata-agent          with a real agent, which is asked for the container over vsock
  nvrc-lab boot --kernel vmlinuz --initrd initrd    some other image
  nvrc-lab boot --json                              the result for a program
"""
AGENT_LINGER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asked for."""

    kernel: Path | None
    initrd: Path | None
    agent: Path | None
    cmdline: str
    accel: Accel | None
    memory_mib: int
    cpus: int
    timeout_s: float
    linger_s: float | None
    console: Path | None
    is_json: bool
    everything: bool
    route: str = "a"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenario", nargs="?", metavar="SCENARIO", help="a scenario file from anywhere, or the name of one of this "
        "checkout: boot its machine and compare with its expectation")
    add("--kernel", type=Path, metavar="FILE", help="bzImage; needs --initrd (default: the lab image's)")
    add("--initrd", type=Path, metavar="FILE", help="initial root file system; needs --kernel")
    add("--agent", type=Path, metavar="FILE",
        help="program to put at /usr/bin/kata-agent; with SCENARIO the lab asks it for a pod as Kata's runtime does, "
        f"without, it is stopped {AGENT_LINGER_S:g} s after READY (--linger)")
    add("--cmdline", default="", metavar="TEXT", help="kernel parameters to add; the last value of a key wins")
    add("--accel", choices=("auto", *(accel.value for accel in Accel)), default="auto",
        help="auto tries KVM on a tiny guest first")
    add("--memory", type=int, default=512, metavar="MIB", help="guest memory (default: %(default)s)")
    add("--cpus", type=int, default=1, metavar="N", help="virtual processors (default: %(default)s)")
    add("--timeout", type=float, default=120.0, metavar="S", help="end of patience (default: %(default)s)")
    add("--linger", type=float, metavar="S", help="stop the machine this long after READY")
    add("--console", type=Path, metavar="FILE", help="where to keep the console (default: below out/lab/)")
    add("--verbose", action="store_true", help="print every console line instead of the table")
    add("--route", choices=("a", "b"), default="a", help="a scenario's PCI functions from inside the guest (a), "
        "or by vfio-user, with a QEMU that is set up at first use (b) (default: %(default)s)")
    add("--json", action="store_true", help="print the result as one JSON object")


def read_order(args: argparse.Namespace) -> Order:
    if (args.kernel is None) != (args.initrd is None):
        raise LabError("--kernel and --initrd belong together", "give both, or neither for the lab image")
    for name, value in (("--memory", args.memory), ("--cpus", args.cpus), ("--timeout", args.timeout)):
        if value <= 0:
            raise LabError(f"{name} {value} is not above zero", "give a positive number")
    if args.route == "b" and args.scenario is None:
        raise LabError("--route b without a scenario", "name one; a boot by itself has no virtual functions")
    linger = args.linger if args.linger is not None or args.agent is None else AGENT_LINGER_S
    return Order(
        kernel=args.kernel, initrd=args.initrd, agent=args.agent, cmdline=args.cmdline,
        accel=None if args.accel == "auto" else Accel(args.accel), memory_mib=args.memory, cpus=args.cpus,
        timeout_s=args.timeout, linger_s=linger, console=args.console, is_json=args.json, everything=args.verbose,
        route=args.route,
    )


def run(args: argparse.Namespace) -> int:
    order, places = read_order(args), checkout()
    qemu = find_qemu()
    if args.scenario is not None:
        from nvrc_lab.commands.rehearsal import rehearse  # noqa: PLC0415  (only a scenario needs it)

        return rehearse(args.scenario, order, qemu, places)
    choice = _choose(order, qemu, places)
    if order.agent is not None:
        check_agent(order.agent)
    files = _find_files(order)
    _say(f"accelerator: {choice.accel.value} ({choice.reason})", order)
    name = f"boot-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    scratch = places.runs / name
    try:
        if order.agent is not None:
            files = put_agent(files, order.agent, scratch)
        machine = make_machine(order, files)
        console = order.console or places.runs / f"{name}.console"
        return _boot(order, make_argv(machine, qemu.program, choice.accel), console, choice)
    finally:
        _drop(scratch)


def make_machine(order: Order, files: BootFiles) -> Machine:
    return Machine(kernel=files.kernel, initrd=files.initrd, memory_mib=order.memory_mib, cpus=order.cpus,
                   cmdline=make_cmdline(order.cmdline, has_standin=order.agent is None))


def _choose(order: Order, qemu: Qemu, places: Places) -> Choice:
    if order.accel is not None:
        return Choice(accel=order.accel, reason="asked for by --accel")
    return choose_accel(qemu, places.accel)


def _find_files(order: Order) -> BootFiles:
    if order.kernel is None or order.initrd is None:
        return build_image()
    files = BootFiles(kernel=order.kernel, initrd=order.initrd)
    check_files(files)
    return files


def _boot(order: Order, argv: tuple[str, ...], console: Path, choice: Choice) -> int:
    view = choose_view(sys.stdout, is_json=order.is_json, everything=order.everything)
    limits = Limits(total_s=order.timeout_s, linger_s=order.linger_s)
    outcome = watch(argv, console, limits, view.update)
    judgement = judge(outcome)
    view.finish(outcome, judgement)
    if order.is_json:
        print(json.dumps(as_json(outcome, judgement, choice), indent=1))
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
