# SPDX-License-Identifier: Apache-2.0
"""`nvrc plan`: what a boot would do here, or with another command line, bus and policy. Touches nothing."""

from __future__ import annotations

import argparse
import os
from typing import TextIO

from nvrc.boot import BOOT
from nvrc.commands.initdata import read_document
from nvrc.commands.recording import record
from nvrc.hardware.imagined import imagine
from nvrc.machine.files import LinuxFiles
from nvrc.machine.system import Readable
from nvrc.params.initdata import parse_both, read_initdata
from nvrc.params.parse import parse
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.report.plan import Plan, PlannedProblem, PlannedStep, make_plan
from nvrc.report.report import Role
from nvrc.report.view import align, inside, section
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import headline, printable
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import UNLIMITED, flow, width_of, write_text

NAME = "plan"
HELP = "show what a boot would do here, without doing it"
EPILOG = """\
examples:
  nvrc plan                                        this machine, its command line and policy
  nvrc plan --cmdline 'nvrc.log=debug nvrc.mode=gpu'
  nvrc plan --machine 'H100*8,nvswitch*4' --cmdline nvrc.gpus=8
  nvrc plan --record guest                         in a VM: copy what the plan needs into a folder
  nvrc plan --root guest                           anywhere: the plan of the machine that was recorded
  nvrc plan --sysfs copy-of-sys --policy policy.toml --json

A machine is names and counts: a product (H100, L40S, ...), nvswitch, management-nic, nic, or cpu for none. --sysfs is
a folder laid out like /sys (bus/pci/devices/...). With --cmdline, --machine or --sysfs the plan is for another
machine, so this one's policy is not read unless --policy names it; --root has a line and a policy of its own.

Exit status 1 if that boot would not reach the agent."""


class SysfsCopy(LinuxFiles):
    """A bus to read from a folder laid out like /sys."""

    def real_path(self, path: str) -> str:
        return super().real_path(path.removeprefix("/sys"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cmdline", metavar="TEXT", help=f"kernel command line (that in {paths.CMDLINE})")
    bus = parser.add_mutually_exclusive_group()
    bus.add_argument("--machine", metavar="TEXT", help="PCI functions in words, such as 'H100*8,nvswitch*4'")
    bus.add_argument("--sysfs", metavar="DIR", help="folder to read the PCI bus from (/sys)")
    bus.add_argument("--root", metavar="DIR", help="folder that --record made, or a root with proc/cmdline and sys")
    bus.add_argument("--record", metavar="DIR", help="make no plan; copy what one needs into this new folder")
    parser.add_argument("--policy", metavar="FILE", help=f"policy of the image ({paths.POLICY} if it exists)")
    parser.add_argument("--initdata", metavar="FILE", help="what the pod gives its VM, in any form of nvrc initdata")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.record is not None:
        return _record(args, out)
    line = _line(args)
    bus = _bus(args)
    policy, policy_error = NO_POLICY, None
    try:
        policy = _policy(args)
    except NvrcError as error:
        policy_error = error
    pod = read_initdata(read_document(args.initdata)) if args.initdata is not None else None
    parsed = parse_both(line, policy, pod) if pod else parse(line, policy)
    plan = make_plan(BOOT, parsed, bus, policy_error)
    if args.json:
        write_document(out, plan)
    else:
        out.write(show(plan, width_of(out)))
    return 0 if plan.boots else 1


def _record(args: argparse.Namespace, out: TextIO) -> int:
    count = record(LinuxFiles(), args.record)
    if args.json:
        write_document(out, {"folder": args.record, "functions": count})
    else:
        write_text(out, f"{printable(args.record)}: {count} PCI functions, the command line, the policy if any\n")
    return 0


def _line(args: argparse.Namespace) -> bytes:
    if args.cmdline is not None:
        return os.fsencode(args.cmdline)
    if args.machine is not None:
        return b""  # this machine's line says nothing about an imagined one
    return read_input(_below(args.root, paths.CMDLINE))


def _bus(args: argparse.Namespace) -> Readable:
    if args.machine is not None:
        return imagine(args.machine)
    if args.root is not None:
        return LinuxFiles(_folder(args.root))
    return LinuxFiles() if args.sysfs is None else SysfsCopy(_folder(args.sysfs))


def _below(root: str | None, path: str) -> str:
    return path if root is None else root + path


def show(plan: Plan, width: int = UNLIMITED) -> str:
    inner = inside(width)
    verdict = f"boots, mode {plan.mode}" if plan.boots else "does not boot"
    lines = [verdict, "", *align([_STEP_HEAD, *map(_step_row, plan.steps)], width, has_heads=True)]
    for failure in plan.failures:
        lines += ["", printable(headline(failure)),
                  printable(f"  {failure.hint}")]
    lines += section("problems of the command line", map(_problem_line, plan.problems))
    lines += section("warnings", map(printable, plan.warnings))
    lines += section("parameters that are set", align(
        [(p.name, p.value, f"({p.source})") for p in plan.parameters if p.source != "default"], inner))
    lines += section("PCI functions that decide the mode", align([
        (f.role.value, f.bdf, f"{f.ids} class {f.pci_class}")
        for f in plan.topology if f.role is not Role.OTHER], inner))
    return flow("\n".join(lines) + "\n", width)


def _folder(path: str) -> str:
    # A missing bus is a machine without PCI; a missing copy is a mistake in the call.
    os.listdir(path)
    return path


def _policy(args: argparse.Namespace) -> Policy:
    elsewhere = args.root is None and (args.cmdline, args.sysfs, args.machine) != (None, None, None)
    own = _below(args.root, paths.POLICY)
    if args.policy is None and (elsewhere or not os.path.lexists(own)):
        return NO_POLICY
    return load_policy(read_input(args.policy or own))


_STEP_HEAD = ("step", "runs", "deadline", "if it fails", "why")  # the codes of each are in --json


def _step_row(step: PlannedStep) -> tuple[str, ...]:
    deadline = "" if step.deadline_s is None else f"{step.deadline_s:g} s"
    return step.name, "yes" if step.runs else "no", deadline, step.on_failure, step.why


def _problem_line(problem: PlannedProblem) -> str:
    hint = f", {problem.hint}" if problem.hint else ""
    return printable(f"{problem.severity}: {problem.parameter}: {problem.what}{hint}")
