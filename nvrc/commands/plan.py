# SPDX-License-Identifier: Apache-2.0
"""`nvrc plan`: what a boot would do here, or with another command line, bus and policy. Touches nothing."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import TextIO

from nvrc.boot import BOOT
from nvrc.hardware.topology import PciReader
from nvrc.machine.linux_system import LinuxSystem
from nvrc.params.parse import parse
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.report.plan import Plan, PlannedProblem, PlannedStep, make_plan
from nvrc.report.report import Role
from nvrc.report.view import align, section
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsontext import encode

NAME = "plan"
HELP = "show what a boot would do here, without doing it"
EPILOG = """\
examples:
  nvrc plan                                        this machine, its command line and policy
  nvrc plan --cmdline 'nvrc.log=debug nvrc.mode=gpu'
  nvrc plan --sysfs copy-of-sys --policy policy.toml --json

DIR is laid out like /sys (DIR/bus/pci/devices/...). With --cmdline or --sysfs the plan is for another machine, so this
one's policy is not read unless --policy names it. Exit status 1 if that boot would not reach the agent."""


@dataclass(frozen=True, slots=True)
class SysfsCopy:
    """A bus to read from a folder laid out like /sys."""

    folder: str

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        return LinuxSystem(self.folder).read(path.removeprefix("/sys"), limit)

    def list_dir(self, path: str) -> tuple[str, ...]:
        return LinuxSystem(self.folder).list_dir(path.removeprefix("/sys"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cmdline", metavar="TEXT", help=f"kernel command line (that in {paths.CMDLINE})")
    parser.add_argument("--sysfs", metavar="DIR", help="folder to read the PCI bus from (/sys)")
    parser.add_argument("--policy", metavar="FILE", help=f"policy of the image ({paths.POLICY} if it is there)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    line = read_input(paths.CMDLINE) if args.cmdline is None else os.fsencode(args.cmdline)
    bus: PciReader = LinuxSystem() if args.sysfs is None else SysfsCopy(_folder(args.sysfs))
    policy, policy_error = NO_POLICY, None
    try:
        policy = _policy(args)
    except NvrcError as error:
        policy_error = error
    plan = make_plan(BOOT, parse(line, policy), bus, policy_error)
    out.write(encode(plan).decode() if args.json else show(plan))
    return 0 if plan.boots else 1


def show(plan: Plan) -> str:
    verdict = f"boots, mode {plan.mode}" if plan.boots else "does not boot"
    lines = [verdict, "", *align([_STEP_HEAD, *map(_step_row, plan.steps)])]
    for failure in plan.failures:
        lines += ["", printable(f"{failure.code} in step {failure.step}: {failure.what}"),
                  printable(f"  {failure.hint}")]
    lines += section("problems of the command line", map(_problem_line, plan.problems))
    lines += section("warnings", map(printable, plan.warnings))
    lines += section("parameters that are set", align(
        [(p.name, p.value, f"({p.source})") for p in plan.parameters if p.source != "default"]))
    lines += section("PCI functions that decide the mode", align(
        [(f.role.value, f.bdf, f"{f.ids} class {f.pci_class}") for f in plan.topology if f.role is not Role.OTHER]))
    return "\n".join(lines) + "\n"


def _folder(path: str) -> str:
    # A missing bus is a machine without PCI; a missing copy is a mistake in the call.
    os.listdir(path)
    return path


def _policy(args: argparse.Namespace) -> Policy:
    elsewhere = args.cmdline is not None or args.sysfs is not None
    if args.policy is None and (elsewhere or not os.path.exists(paths.POLICY)):
        return NO_POLICY
    return load_policy(read_input(args.policy or paths.POLICY))


_STEP_HEAD = ("step", "runs", "deadline", "if it fails", "why")  # the codes of each are in --json


def _step_row(step: PlannedStep) -> tuple[str, ...]:
    deadline = "" if step.deadline_s is None else f"{step.deadline_s:g} s"
    return step.name, "yes" if step.runs else "no", deadline, step.on_failure, step.why


def _problem_line(problem: PlannedProblem) -> str:
    hint = f", {problem.hint}" if problem.hint else ""
    return printable(f"{problem.severity}: {problem.parameter}: {problem.what}{hint}")
