# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab soak`: boot a mix of scenarios again and again, beside busy processes, and tell how often one surprised.

A surprise is a boot that did not come to what its scenario expects. Nothing is run a second time to see whether it goes
away: what happens once in a hundred boots is what this is for. Consoles of surprises stay.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import write_text
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.hosttime import read_load

if TYPE_CHECKING:
    from nvrc_lab.run.runner import Result
    from nvrc_lab.scenario.values import Scenario

SUMMARY = "boot a mix of scenarios again and again, beside load, and tell the rate of surprises"
EXAMPLES = """\
examples:
  nvrc-lab soak                        a hundred boots of all scenarios but variants, mixed
  nvrc-lab soak --boots 300 --load 8   beside eight processes that do nothing but compute
  nvrc-lab soak gpu-1 cc --boots 50    those with one of the words in their name
  nvrc-lab soak --json                 the result for a program
"""
# A busy process goes when the lab does, however that ended.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100000))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What came of all boots. `loads`: the host's load as each of them ended."""

    boots: int = 0
    surprises: tuple[Result, ...] = ()
    loads: tuple[float, ...] = ()
    starved_s: float = 0.0
    machine_s: float = 0.0
    most_apart: float = 0.0

    def add(self, result: Result, load: float) -> Tally:
        run = result.told.run if result.told is not None else None
        return replace(
            self, boots=self.boots + 1, surprises=self.surprises if result.ok else (*self.surprises, result),
            loads=(*self.loads, load), starved_s=self.starved_s + (run.host.starved_s if run else 0.0),
            machine_s=self.machine_s + (run.seconds if run else 0.0),
            most_apart=max(self.most_apart, run.clocks.apart_s() if run else 0.0))

    @property
    def load(self) -> float:
        return sum(self.loads) / len(self.loads) if self.loads else 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("words", nargs="*", metavar="WORD", help="only scenarios with one of these in their name")
    add("--boots", type=int, default=100, metavar="N", help="how many in all (default: %(default)s)")
    add("--load", type=int, default=0, metavar="K", help="busy processes beside the machines (default: %(default)s)")
    add("--workers", type=int, default=0, metavar="N", help="machines at a time (default: one more than processors)")
    add("--seed", type=int, default=0, metavar="N", help="another order of the scenarios (default: %(default)s)")
    add("--accel", choices=("auto", "kvm", "tcg", "counted"), default="auto",
        help="auto tries KVM on a tiny guest first")
    add("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.commands.matrix import choose, without_variants  # noqa: PLC0415
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415

    for name, value, least in (("--boots", args.boots, 1), ("--load", args.load, 0)):
        if value < least:
            raise LabError(f"{name} {value} is less than {least}", "give a larger number")
    places = checkout()
    scenarios = choose(places.scenarios, args.words)
    if not scenarios:
        raise LabError(f"no scenario has {' or '.join(args.words)} in its name", "see nvrc-lab list")
    if not args.words:
        scenarios = without_variants(scenarios, is_json=True)
    folder = places.runs / f"soak-{time.strftime('%Y%m%d-%H%M%S')}"
    started = time.monotonic()
    with busy(args.load):
        tally = _boot_all(args, mix(scenarios, args.boots, args.seed), folder)
    seconds = time.monotonic() - started
    if args.json:
        write_document(sys.stdout, as_json(tally, args.load, seconds))
    else:
        write_text(sys.stdout, "\n".join((*summarise(tally, args.load, seconds), "")))
    return 1 if tally.surprises else 0


def mix(scenarios: Sequence[Scenario], boots: int, seed: int) -> list[Scenario]:
    """Every scenario once before any is there twice, each time in another order; the same for the same seed."""
    order = random.Random(seed)
    chosen: list[Scenario] = []
    while len(chosen) < boots:
        chosen += order.sample(list(scenarios), len(scenarios))
    return chosen[:boots]


@contextmanager
def busy(count: int) -> Iterator[None]:
    children = [subprocess.Popen([sys.executable, "-I", "-S", "-c", _BUSY], stdin=subprocess.DEVNULL)
                for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()


def _boot_all(args: argparse.Namespace, scenarios: Sequence[Scenario], folder: Path) -> Tally:
    from nvrc_lab.commands.matrix import drop_console, tell  # noqa: PLC0415
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.kit.real_driver import image_for  # noqa: PLC0415
    from nvrc_lab.kit.unpacked_boot import lighten  # noqa: PLC0415
    from nvrc_lab.qemu.qemu import find_qemu  # noqa: PLC0415
    from nvrc_lab.run.runner import choose_or_take, default_workers, open_lab, run_all  # noqa: PLC0415

    places, qemu = checkout(), find_qemu()
    choice = choose_or_take(args.accel, qemu, places)
    lab = open_lab(places, qemu, lighten(image_for(scenarios, places), scenarios, choice.accel, places), scenarios,
                   choice=choice)
    _say(f"{len(scenarios)} boots beside {args.load} busy processes, accelerator {choice.accel.value}", args)
    tally, started = Tally(), time.monotonic()
    try:
        for one in run_all(lab, scenarios, folder, args.workers or default_workers()):
            tally = tally.add(one, read_load())
            if one.ok:
                drop_console(one.console)
            _say(f"{tally.boots:>4} " + "\n".join(tell(one)), args)
    except KeyboardInterrupt:
        if tally.boots:
            _say("\n".join(summarise(tally, args.load, time.monotonic() - started)), args)
        raise
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return tally


def summarise(tally: Tally, load: int, seconds: float) -> list[str]:
    count = len(tally.surprises)
    # None of N leaves a rate of 3 in N with a probability of one in twenty.
    rate = f"{100 * count / tally.boots:.1f} %" if count else f"fewer than {300 / tally.boots:.1f} % by 95 % certainty"
    lines = [f"{count} surprises in {tally.boots} boots ({rate}), {seconds:.0f} s",
             f"beside {load} busy processes: load {tally.load:.1f} on average; of {tally.machine_s:.0f} s machines "
             f"waited {tally.starved_s:.0f} s for a processor",
             f"the guests' clocks and the host's were at most {tally.most_apart:.1f} s apart"]
    kinds = Counter(f"{one.scenario.name}: {one.problems[0]}" for one in tally.surprises)
    lines += [f"  {times} x {kind}" for kind, times in kinds.most_common()]
    return lines + [f"  {one.console}" for one in tally.surprises]


def as_json(tally: Tally, load: int, seconds: float) -> dict[str, object]:
    return {
        "boots": tally.boots, "surprises": len(tally.surprises), "busy": load, "load": round(tally.load, 2),
        "seconds": round(seconds, 1), "machine_seconds": round(tally.machine_s, 1),
        "starved_seconds": round(tally.starved_s, 1), "clocks_apart_seconds": round(tally.most_apart, 2),
        "rows": [{"scenario": one.scenario.name, "verdict": one.verdict, "code": one.code,
                  "problems": list(one.problems), "console": str(one.console)} for one in tally.surprises]}


def _say(text: str, args: argparse.Namespace) -> None:
    print(text, file=sys.stderr if args.json else sys.stdout, flush=True)
