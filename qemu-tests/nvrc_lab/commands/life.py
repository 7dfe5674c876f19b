# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab life`: one machine that lives for hours, with what others meet in weeks happening every few seconds.

Daemons die until the init gives them up, the driver tells Xids, orphans end, the log is flooded, memory runs out, a
link flaps, and clients come to the control socket and scrapers to the metrics, read, hang up or stay silent. The
process that serves metrics is frozen in each round; it is killed before the first, since it would be given up as others
are. After each round the prober counts what PID 1 and that process hold; none of it may grow. At the end PID 1 is asked
to stop, and has to do so in order.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from nvrc.vocabulary import paths
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import write_text
from nvrc_lab.ground.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvrc_lab.run.runner import Result
    from nvrc_lab.scenario.values import Scenario
    from nvrc_lab.watch.census import Census
    from nvrc_lab.watch.console import Story

SUMMARY = "let one machine live for hours, with much happening, and tell what grows"
EXAMPLES = """\
examples:
  nvrc-lab life                 one hour
  nvrc-lab life --hours 0.1     six minutes
  nvrc-lab life --json          the result for a program, with every count
"""
METRICS = "nvrc-metrics"
PORT = 9401  # not that of dcgm-exporter
SCENARIO = f"""\
summary: A machine that lives for long, with all that happens in weeks every few seconds.
machine:
  gpus:
    - {{product: H100, count: 2}}
cmdline: nvrc.dcgm=on nvrc.metrics={PORT}
agent:
  does: [hold]
expect:
  verdict: ready
  gpus: 2
"""
# Xid 31 is a workload's own error, 119 one after which the GPU counts as failed.
ROUND = (
    "write /proc/nvidia-lab xid 0000:40:00.0 31 pid=1, name=life, told by the lab",
    "write /proc/nvidia-lab xid 0000:41:00.0 119 pid=0, name=, told by the lab",
    f"scrapers {PORT} 12", "append /etc/nvml-mock.conf set gpu=0 draw-mw=412000 ecc=3,1",
    f"kill {METRICS} 19", "orphans 40", "flood 100", f"clients {paths.CONTROL} 12", "flap lo 100", "hog",
    f"kill {METRICS} 18",
    "kill dcgm-exporter 9", "kill nv-hostengine 9", "kill nvidia-persistenced 9",
    "sleep 1500", "census",
)
KILLED_FIRST = (f"await {METRICS} 60000", "sleep 3000", f"kill {METRICS} 9", "sleep 3000", f"await {METRICS} 60000")
READY_MS = 600_000
MORE_S = 600.0  # for the start, the end, and a round that began late
TELL_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--hours", type=float, default=1.0, metavar="H", help="how long it lives (default: %(default)g)")
    add("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="auto tries KVM on a tiny guest first")
    add("--json", action="store_true", help="print the result as one JSON object")


def events(seconds: float) -> tuple[str, ...]:
    """What the hand inside does: all rounds, then PID 1 is asked to stop."""
    return (f"heard {READY_MS} nvrc: READY", *KILLED_FIRST, f"loop {seconds:.0f}", *ROUND, "end", "kill 1 15")


def scenario_of(seconds: float) -> Scenario:
    from nvrc_lab.scenario.scenario import parse_scenario  # noqa: PLC0415

    return replace(parse_scenario(SCENARIO, "life", "life"), deadline_s=seconds + MORE_S)


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.watch.census import find_growth, read_censuses, render  # noqa: PLC0415

    if args.hours <= 0:
        raise LabError(f"--hours {args.hours:g} is not above zero", "give a positive number")
    result = _live(args, args.hours * 3600)
    censuses = read_censuses(result.told.lines if result.told is not None else ())
    findings = (*result.problems, *find_growth(censuses))
    if args.json:
        write_document(sys.stdout, as_json(result, censuses, findings))
    else:
        write_text(sys.stdout, "\n".join((f"{len(censuses)} rounds in {result.seconds:.0f} s", *render(censuses),
                         *(f"  {finding}" for finding in findings), f"  {result.console}", "")))
    return 1 if findings else 0


def _live(args: argparse.Namespace, seconds: float) -> Result:
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.kit.real_driver import image_for  # noqa: PLC0415
    from nvrc_lab.kit.unpacked_boot import lighten  # noqa: PLC0415
    from nvrc_lab.qemu.qemu import find_qemu  # noqa: PLC0415
    from nvrc_lab.run.runner import choose_or_take, open_lab, run_scenario  # noqa: PLC0415

    places, qemu, scenario = checkout(), find_qemu(), scenario_of(seconds)
    choice = choose_or_take(args.accel, qemu, places)
    image = lighten(image_for([scenario], places), [scenario], choice.accel, places)
    lab = open_lab(places, qemu, image, [scenario], choice=choice)
    console = places.runs / f"life-{time.strftime('%Y%m%d-%H%M%S')}.console"
    return run_scenario(replace(lab, events=events(seconds)), scenario, console,
                        tell=Teller(is_json=args.json).hear)


class Teller:
    """The latest count, once a minute."""

    def __init__(self, *, is_json: bool) -> None:
        self._stream = sys.stderr if is_json else sys.stdout
        self._rounds, self._told_s = 0, 0.0

    def hear(self, _story: Story, lines: tuple[str, ...], now_s: float) -> None:
        for line in lines:
            _, found, counts = line.partition("probe: census ")
            self._rounds += bool(found)
            if found and now_s - self._told_s >= TELL_S:
                self._told_s = now_s
                print(f"{now_s:>7.0f} s  round {self._rounds}  {counts}", file=self._stream, flush=True)


def as_json(result: Result, censuses: Sequence[Census], findings: Sequence[str]) -> dict[str, object]:
    return {"seconds": round(result.seconds, 1), "verdict": result.verdict, "findings": list(findings),
            "console": str(result.console), "counts": [asdict(one) for one in censuses]}
