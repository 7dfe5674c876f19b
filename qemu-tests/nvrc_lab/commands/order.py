# SPDX-License-Identifier: Apache-2.0
"""What a command line of `nvrc-lab boot` asks for, as a value, for a plain boot and for a scenario alike."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.ground.errors import LabError
from nvrc_lab.qemu.machine import Accel

AGENT_LINGER_S = 10.0
DEFAULT_SCENARIO = "gpu-1"  # one GPU, and a container that sees it
MEMORY_MIB = 512
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asked for."""

    kernel: Path | None
    initrd: Path | None
    agent: Path | None
    cmdline: str
    accel: Accel | None
    memory_mib: int | None
    cpus: int | None
    timeout_s: float
    linger_s: float | None
    console: Path | None
    is_json: bool
    everything: bool
    wait_s: float | None = None
    scenario: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenario", nargs="?", metavar="SCENARIO", help="a scenario file from anywhere, or the name of one of this "
        f"checkout: boot its machine and compare with its expectation (default: {DEFAULT_SCENARIO}; with --kernel, "
        "--agent or --linger a machine without a GPU and without an expectation)")
    add("--kernel", type=Path, metavar="FILE", help="bzImage; needs --initrd (default: the lab image's)")
    add("--initrd", type=Path, metavar="FILE", help="initial root file system; needs --kernel")
    add("--agent", type=Path, metavar="FILE",
        help="program to put at /usr/bin/kata-agent; with SCENARIO the lab asks it for a pod as Kata's runtime does, "
        f"without, it is stopped {AGENT_LINGER_S:g} s after READY (--linger)")
    add("--cmdline", default="", metavar="TEXT", help="kernel parameters to add; the last value of a key wins")
    add("--accel", choices=("auto", *(accel.value for accel in Accel)), default="auto",
        help="auto tries KVM on a tiny guest first")
    add("--memory", type=int, metavar="MIB", help=f"guest memory (default: the scenario's, else {MEMORY_MIB})")
    add("--cpus", type=int, metavar="N", help="virtual processors (default: the scenario's, else 1)")
    add("--timeout", type=float, metavar="S", help=f"end of patience with the machine (default: {TIMEOUT_S:g}; of a "
        "scenario, its own) and, when given, with another build that makes the image")
    add("--linger", type=float, metavar="S", help="stop the machine this long after READY")
    add("--console", type=Path, metavar="FILE", help="where to keep the console (default: below out/lab/)")
    add("--verbose", action="store_true", help="print every console line instead of the table")
    add("--json", action="store_true", help="print the result as one JSON object")


def read_order(args: argparse.Namespace) -> Order:
    if (args.kernel is None) != (args.initrd is None):
        raise LabError("--kernel and --initrd belong together", "give both, or neither for the lab image")
    for name, value in (("--memory", args.memory), ("--cpus", args.cpus), ("--timeout", args.timeout)):
        if value is not None and value <= 0:
            raise LabError(f"{name} {value} is not above zero", "give a positive number")
    linger = args.linger if args.linger is not None or args.agent is None else AGENT_LINGER_S
    return Order(
        kernel=args.kernel, initrd=args.initrd, agent=args.agent, cmdline=args.cmdline,
        accel=None if args.accel == "auto" else Accel(args.accel), memory_mib=args.memory, cpus=args.cpus,
        timeout_s=args.timeout or TIMEOUT_S, wait_s=args.timeout, linger_s=linger, console=args.console,
        is_json=args.json, everything=args.verbose, scenario=args.scenario or _default_scenario(args),
    )


def _default_scenario(args: argparse.Namespace) -> str | None:
    """None: an image or an agent of somebody's own, of which no scenario knows what will come."""
    own = any(value is not None for value in (args.kernel, args.agent, args.linger))
    return None if own else DEFAULT_SCENARIO
