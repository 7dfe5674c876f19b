# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab explain`: a scenario in words: its machine as the guest will see it, its faults, what must come of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import lay_table, width_of, write_text

if TYPE_CHECKING:
    from nvrc_lab.scenario.values import Scenario

SUMMARY = "tell what a scenario is, or what a fault does"
EXAMPLES = """\
examples:
  nvrc-lab explain gpu-8-nvswitch       machine, faults, expectation, command line
  nvrc-lab explain ./mine.yaml          the same for a file
  nvrc-lab explain faults               every fault there is
  nvrc-lab explain fault-table          which scenarios break which step, and kill which daemon when
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a scenario, a file, or the word 'faults' or 'fault-table'")
    parser.add_argument("--json", action="store_true", help="print one object")


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.scenario.scenario import find_scenario, read_scenario  # noqa: PLC0415

    if args.name == "faults":
        return _print_faults(is_json=args.json)
    if args.name == "fault-table":
        return _print_fault_table(is_json=args.json)
    scenario = read_scenario(find_scenario(args.name, checkout().scenarios))
    lines = tuple(describe(scenario))
    if args.json:
        write_document(sys.stdout, {"name": scenario.name, "summary": scenario.summary, "text": lines})
    else:
        write_text(sys.stdout, "\n".join((*lines, "")))
    return 0


def _print_faults(*, is_json: bool) -> int:
    from nvrc_lab.scenario.faults import FAULTS  # noqa: PLC0415

    if is_json:
        write_document(sys.stdout, {"faults": [{"name": name, "about": row.about, "needs": row.needs}
                                               for name, row in FAULTS.items()]})
        return 0
    rows = [(name, row.about + (f" (needs {', '.join(row.needs)})" if row.needs else ""))
            for name, row in FAULTS.items()]
    print("\n".join(lay_table(rows, width_of(sys.stdout))))
    return 0


def _print_fault_table(*, is_json: bool) -> int:
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.scenario.fault_table import daemon_table, render, step_table  # noqa: PLC0415
    from nvrc_lab.scenario.scenario import list_scenarios, read_scenario  # noqa: PLC0415

    scenarios = [read_scenario(path) for path in list_scenarios(checkout().scenarios)]
    if is_json:
        write_document(sys.stdout, {"steps": step_table(scenarios), "daemons": daemon_table(scenarios)})
    else:
        print(render(scenarios), end="")
    return 0


def describe(scenario: Scenario) -> Iterator[str]:
    from nvrc_lab.run.compose import make_line, needed_parts  # noqa: PLC0415

    yield f"{scenario.name}: {scenario.summary}"
    if scenario.story:
        yield from ("", *scenario.story.strip().splitlines())
    yield from ("", "machine", *(f"  {line}" for line in _machine(scenario)))
    if scenario.faults:
        yield from ("", "faults", *(f"  {line}" for line in _faults(scenario)))
    yield from ("", "expected", *(f"  {line}" for line in _expected(scenario)))
    yield from ("", "laid over the image: " + ", ".join(needed_parts(scenario)),
                "kernel command line: " + make_line(scenario))


def _machine(scenario: Scenario) -> Iterator[str]:
    from nvrc_lab.scenario.hardware import place_gpus  # noqa: PLC0415
    from nvrc_lab.scenario.tree import place_nics  # noqa: PLC0415

    machine = scenario.machine
    yield f"{machine.memory_mib} MiB, {machine.cpus} processor{'s' if machine.cpus > 1 else ''}"
    for placed in place_gpus(machine):
        mig = f", MIG {' '.join(placed.gpu.mig)}" if placed.gpu.mig else ""
        yield (f"{placed.bdf}  {placed.product.model} (10de:{placed.product.device:04x}), /dev/nvidia{placed.minor}, "
               f"confidential mode {placed.gpu.confidential.value}, attaches in {placed.gpu.attach_ms} ms{mig}")
    counted = (("NVSwitches", machine.nvswitches), ("NVLink management functions", machine.management_nics),
               ("other vendors' displays", machine.displays))
    yield from (f"{count} {name}" for name, count in counted if count)
    yield from (f"{nic.bdf}  {nic.words}" for nic in place_nics(machine))
    for extension in machine.extensions:
        yield f"extension {extension.name}, damage: {extension.damage.value}"


def _faults(scenario: Scenario) -> Iterator[str]:
    from nvrc_lab.scenario.faults import FAULTS  # noqa: PLC0415

    for fault in scenario.faults:
        places = [f"GPU {fault.gpu}"] if fault.gpu is not None else []
        places += [word for word in (fault.program, fault.call, fault.value) if word]
        where = f" ({', '.join(places)})" if places else ""
        yield f"{fault.name}{where}: {FAULTS[fault.name].about}"


def _expected(scenario: Scenario) -> Iterator[str]:
    expect = scenario.expect
    at = f" at {expect.step}" if expect.step else ""
    yield f"{expect.verdict.value}{f' with {expect.code}' if expect.code else ''}{at}"
    for name, value in (("mode", expect.mode), ("gpus", expect.gpus), ("cdi devices", expect.cdi)):
        if value not in ("", None):
            yield f"{name} {value}"
    yield from (f"report {path}: {value}" for path, value in expect.report.items())
    yield from (f"a warning with {text!r}" for text in expect.warnings)
    if expect.container is not None:
        seen = expect.container
        yield (f"the container is refused: {seen.refused}" if seen.refused else
               f"the container sees GPU minors {', '.join(map(str, seen.gpus)) or 'none'} and no other")
