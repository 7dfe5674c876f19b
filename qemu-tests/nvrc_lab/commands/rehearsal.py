# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab boot SCENARIO`: one scenario, shown as it happens, then compared with what it must come to."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from nvrc.report.svg import render_svg
from nvrc.vocabulary.output import write_document
from nvrc_lab.agent.runtime_side import play_scenario
from nvrc_lab.commands.matrix import as_json
from nvrc_lab.commands.order import Order
from nvrc_lab.ground.places import Places
from nvrc_lab.kit.image import BootFiles, check_agent, check_files, put_agent
from nvrc_lab.kit.real_driver import image_for
from nvrc_lab.kit.unpacked_boot import lighten
from nvrc_lab.qemu.accel import Choice, choose_accel
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.qemu.qemu import Qemu
from nvrc_lab.run.runner import Result, open_lab, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, read_scenario
from nvrc_lab.scenario.values import Scenario
from nvrc_lab.watch.verdict import judge
from nvrc_lab.watch.view import choose_view


def rehearse(word: str, order: Order, qemu: Qemu, places: Places) -> int:
    scenario = read_scenario(find_scenario(word, places.scenarios))
    if order.cmdline:
        scenario = replace(scenario, cmdline=f"{scenario.cmdline} {order.cmdline}")
    machine = scenario.machine
    scenario = replace(scenario, machine=replace(machine, memory_mib=order.memory_mib or machine.memory_mib,
                                                 cpus=order.cpus or machine.cpus))
    if order.wait_s is not None:
        scenario = replace(scenario, deadline_s=order.wait_s)
    choice = (Choice(accel=order.accel, reason="asked for by --accel") if order.accel is not None
              else choose_accel(qemu, places.accel))
    scratch = places.runs / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    image = find_image(order, scratch, scenario, choice.accel, places)
    try:
        lab = open_lab(places, qemu, image, [scenario], choice=choice,
                       runtime=play_scenario if order.agent is not None else None)
        console = order.console or scratch.with_suffix(".console")
        view = choose_view(sys.stdout, is_json=order.is_json, everything=order.everything)
        result = run_scenario(lab, scenario, console, tell=view.update)
        if result.told is not None:
            view.finish(result.told.run, judge(result.told.run))
    finally:
        (scratch / "initrd-with-agent").unlink(missing_ok=True)
        if scratch.is_dir():
            scratch.rmdir()
    conclude(result, draw_timeline(result), is_json=order.is_json)
    return 0 if result.ok else 1


def find_image(order: Order, scratch: Path, scenario: Scenario, accel: Accel, places: Places) -> BootFiles:
    if order.agent is not None:
        check_agent(order.agent)
    if order.kernel is None or order.initrd is None:
        files = image_for([scenario], places, agent=order.agent, wait_s=order.wait_s)
    else:
        files = BootFiles(kernel=order.kernel, initrd=order.initrd)
        check_files(files)
    files = lighten(files, [scenario], accel, places)
    if order.agent is None or order.initrd is None:
        return files  # the factory put it in
    return put_agent(files, order.agent, scratch)


def draw_timeline(result: Result) -> Path | None:
    """Beside the console; a machine that told no report has none."""
    if result.told is None or result.told.report is None:
        return None
    path = result.console.with_name(f"{result.console.name.removesuffix('.console')}.svg")
    path.write_text(render_svg(result.told.report), encoding="ascii")
    return path


def conclude(result: Result, timeline: Path | None, *, is_json: bool) -> None:
    if is_json:
        write_document(sys.stdout, {**as_json(result), "timeline": str(timeline) if timeline else None})
        return
    expect, seen = result.scenario.expect, result.told.container if result.told is not None else None
    if seen is not None and seen.ran:
        print(f"  container: sees {', '.join(sorted(seen.nodes)) or 'no device node'}, {len(seen.libraries)} libraries")
    if result.ok:
        print(f"✓ as {result.scenario.name} expects: {expect.code or expect.verdict.value}")
    else:
        print(f"✗ not as {result.scenario.name} expects:")
    for problem in result.problems:
        print(f"  {problem}")
    if timeline is not None:
        print(f"  timeline: {timeline}")
