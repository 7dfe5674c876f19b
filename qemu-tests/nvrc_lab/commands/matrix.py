# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab matrix`: all scenarios, side by side as processors allow, each compared with what it must come to.

Consoles of scenarios that went wrong stay, and their paths are printed; those of good ones go.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import write_text
from nvrc_lab.watch.watch import record_of

if TYPE_CHECKING:
    from nvrc_lab.run.runner import Result
    from nvrc_lab.scenario.values import Scenario

SUMMARY = "run all scenarios and compare each with its expectation"
EXAMPLES = """\
examples:
  nvrc-lab matrix                       the scenarios of this checkout without those that are variants of others
  nvrc-lab matrix --all                 every scenario
  nvrc-lab matrix cc mig                those with one of the words in their name
  nvrc-lab matrix --workers 1 --keep    one after another, and keep every console
  nvrc-lab matrix --json                the results for a program
  nvrc-lab matrix --real-driver         NVIDIA's own modules, libraries and daemons on virtual hardware
"""
REAL_FOLDER = "real-driver"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("words", nargs="*", metavar="WORD", help="only scenarios with one of these in their name")
    add("--all", action="store_true", help="with the scenarios that are variants of others")
    add("--folder", type=Path, metavar="DIR", help="another folder of scenarios")
    add("--real-driver", action="store_true", help="the scenarios with NVIDIA's own driver, in the image nvidia")
    add("--workers", type=int, default=0, metavar="N", help="machines at a time (default: one more than processors)")
    add("--keep", action="store_true", help="keep the consoles of good scenarios, too")
    add("--agent", type=Path, metavar="FILE", help="a kata-agent for every machine, asked for pods over vsock")
    add("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="auto tries KVM on a tiny guest first")
    add("--slow", type=float, default=1.0, metavar="X", help="multiply every deadline, for a busy machine")
    add("--json", action="store_true", help="print the results as one JSON object")


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.ground.errors import LabError  # noqa: PLC0415
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415

    places = checkout()
    scenarios = choose(args.folder or places.scenarios / (REAL_FOLDER if args.real_driver else ""), args.words)
    if not scenarios:
        what = f"has {' or '.join(args.words)} in its name" if args.words else f"is in {args.folder}"
        raise LabError(f"no scenario {what}", "see nvrc-lab list for this checkout's; files are named NAME.yaml")
    if not (args.words or args.all):
        scenarios = without_variants(scenarios, is_json=args.json)
    scenarios = [replace(one, deadline_s=one.deadline_s * args.slow) for one in scenarios]
    started = time.monotonic()
    results = _run_machines(args, scenarios)
    seconds = time.monotonic() - started
    if args.json:
        write_document(sys.stdout, {"seconds": round(seconds, 1), "scenarios": [as_json(one) for one in results]})
    else:
        write_text(sys.stdout, "\n".join((*summarise(results, seconds), "")))
    return 0 if all(one.ok for one in results) else 1


def choose(folder: Path, words: Sequence[str]) -> list[Scenario]:
    from nvrc_lab.scenario.scenario import list_scenarios, read_scenario  # noqa: PLC0415

    return [read_scenario(path) for path in list_scenarios(folder)
            if not words or any(word in path.stem for word in words)]


def without_variants(scenarios: Sequence[Scenario], *, is_json: bool) -> list[Scenario]:
    chosen = [one for one in scenarios if not one.variant]
    if left_out := len(scenarios) - len(chosen):
        _say(f"{left_out} variants are left out; --all runs them, and so does a word of their names", is_json=is_json)
    return chosen


def _run_machines(args: argparse.Namespace, scenarios: Sequence[Scenario]) -> list[Result]:
    from nvrc_lab.agent.runtime_side import play_scenario  # noqa: PLC0415
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.kit.image import check_agent  # noqa: PLC0415
    from nvrc_lab.kit.real_driver import image_for  # noqa: PLC0415
    from nvrc_lab.kit.unpacked_boot import lighten  # noqa: PLC0415
    from nvrc_lab.qemu.qemu import find_qemu  # noqa: PLC0415
    from nvrc_lab.run.runner import choose_or_take, default_workers, open_lab, run_all  # noqa: PLC0415

    if args.agent is not None:
        check_agent(args.agent)
    places, qemu = checkout(), find_qemu()
    choice = choose_or_take(args.accel, qemu, places)
    folder = places.runs / f"matrix-{time.strftime('%Y%m%d-%H%M%S')}"
    image = image_for(scenarios, places, agent=args.agent)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        image = lighten(image, scenarios, choice.accel, places)
        lab = open_lab(places, qemu, image, scenarios, choice=choice,
                       runtime=play_scenario if args.agent is not None else None)
        _say(f"{len(scenarios)} scenarios, accelerator {choice.accel.value} ({choice.reason})", is_json=args.json)
        # The longest first, so that none is left alone at the end.
        order = sorted(scenarios, key=lambda one: -weight(one))
        results = []
        for one in run_all(lab, order, folder, args.workers or default_workers()):
            results.append(one)
            if one.ok and not args.keep:
                drop_console(one.console)
            _say("\n".join(tell(one)), is_json=args.json)
    finally:
        (folder / "initrd-with-agent").unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return sorted(results, key=lambda one: one.scenario.name)


def drop_console(console: Path) -> None:
    for path in (console, record_of(console)):
        path.unlink(missing_ok=True)


def weight(scenario: Scenario) -> float:
    """The seconds that it takes beyond an empty machine, roughly: what is started, and what is waited for."""
    gpus = sum(gpu.count * (0.2 + gpu.attach_ms / 1000) for gpu in scenario.machine.gpus)
    waits = sum(int(fault.value) / 1000 for fault in scenario.faults if fault.name.endswith("-slow"))
    kills = 3.0 * any(fault.name == "program-killed" for fault in scenario.faults)
    return (5.0 if scenario.container else 0.0) + gpus + waits + kills + scenario.agent.seconds + len(scenario.faults)


def tell(result: Result) -> list[str]:
    """A line for a good one; what is wrong and where the console is for the others."""
    code = result.code if result.code not in ("OK", "-") else result.verdict
    line = f"{'ok  ' if result.ok else 'FAIL'}  {result.scenario.name:<34} {result.seconds:6.1f} s  {code}"
    if result.ok:
        return [line]
    return [line, *(f"      {problem}" for problem in result.problems), f"      console: {result.console}"]


def summarise(results: Sequence[Result], seconds: float) -> list[str]:
    failed = [one.scenario.name for one in results if not one.ok]
    head = f"{len(results) - len(failed)} of {len(results)} scenarios as expected in {seconds:.0f} s"
    return [head, *([f"not as expected: {', '.join(failed)}"] if failed else [])]


def as_json(result: Result) -> dict[str, object]:
    return {"name": result.scenario.name, "ok": result.ok, "seconds": round(result.seconds, 2),
            "verdict": result.verdict, "code": result.code, "problems": list(result.problems),
            "console": str(result.console) if result.console.exists() else None}


def _say(text: str, *, is_json: bool) -> None:
    stream = sys.stderr if is_json else sys.stdout
    write_text(stream, f"{text}\n")
    stream.flush()
