# SPDX-License-Identifier: Apache-2.0
"""Run scenarios: compose, boot, gather, compare; several side by side. What is made is removed, whatever happens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nvrc_lab.agent.runtime_side import Runtime, RuntimeSide, keep_said, play_beside, without_standin
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places
from nvrc_lab.ground.scratch import scratch_folder, sweep_folders
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.kit.kit import find_kit
from nvrc_lab.qemu.accel import Choice, choose_accel
from nvrc_lab.qemu.machine import Accel, Disk, Machine, make_argv
from nvrc_lab.qemu.qemu import Qemu
from nvrc_lab.run.compose import Foreign, compose, needed_parts
from nvrc_lab.scenario.values import Scenario
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.expect import code_of, compare, compare_foreign, verdict_of
from nvrc_lab.watch.outcome import Told, gather
from nvrc_lab.watch.watch import Limits, record_of, watch

SILENCE_S = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What all runs of one command share. `events`: a measuring hand, with the lab's clocks on; `early`: of compose.
    `runtime`: what Kata's runtime asks of the agent, when that is a real one. `disks`: behind a machine's own.
    """

    places: Places
    qemu: Qemu
    choice: Choice
    image: BootFiles
    kit: Mapping[str, Path]
    foreign: Foreign | None = None
    events: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    runtime: Runtime | None = None
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`problems` are the differences from the expectation; none means that all is as it should be."""

    scenario: Scenario
    seconds: float
    verdict: str
    code: str
    problems: tuple[str, ...]
    console: Path
    told: Told | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


class StoppedError(Exception):
    """Somebody wants all machines to end."""


def open_lab(places: Places, qemu: Qemu, image: BootFiles, scenarios: Sequence[Scenario], *,
             choice: Choice | None = None, foreign: Foreign | None = None,
             runtime: Runtime | None = None) -> Lab:
    sweep_folders()
    parts = dict.fromkeys(part for scenario in scenarios for part in needed_parts(scenario, foreign))
    return Lab(places=places, qemu=qemu, choice=choice or choose_accel(qemu, places.accel), image=image,
               kit=find_kit(places, parts), foreign=foreign, runtime=runtime)


def run_scenario(lab: Lab, scenario: Scenario, console: Path, stop: threading.Event | None = None,
                 tell: Callable[[Story, tuple[str, ...], float], None] | None = None) -> Result:
    """One machine from nothing to nothing; the console stays."""
    scenario = scenario if lab.runtime is None else without_standin(scenario)
    heard: list[str] = []

    def listen(side: RuntimeSide | None, story: Story, lines: tuple[str, ...], now_s: float) -> None:
        if side is not None:
            side.hear(story)
        if stop is not None and stop.is_set():
            raise StoppedError
        heard.extend(lines)
        if tell is not None:
            tell(story, lines, now_s)

    started = time.monotonic()
    is_wanted = lab.foreign is None and not lab.events
    with scratch_folder() as folder, play_beside(lab.runtime, scenario, folder, is_wanted=is_wanted) as side:
        machine = replace(_compose(lab, scenario, folder), vsock=side.device.path if side else None, console=console)
        limits = Limits(total_s=scenario.deadline_s, silence_s=min(SILENCE_S, scenario.deadline_s))
        run = watch(make_argv(machine, lab.qemu.program, lab.choice.accel), console, limits, partial(listen, side),
                    record=record_of(console))
    told = gather(run, (*heard, *keep_said(side, console)))
    problems = compare(scenario, told) if lab.foreign is None else compare_foreign(told)
    if lab.choice.accel is not Accel.COUNTED and (problem := run.clocks.problem()):
        problems = (problem, *problems)
    return Result(scenario=scenario, seconds=time.monotonic() - started, verdict=verdict_of(told), code=code_of(told),
                  problems=(*problems, *(side.problems if side else ())), console=console, told=told)


def _compose(lab: Lab, scenario: Scenario, folder: Path) -> Machine:
    parts = {name: lab.kit[name] for name in needed_parts(scenario, lab.foreign)}
    try:
        made = compose(scenario, lab.image, parts, folder, foreign=lab.foreign, events=lab.events, early=lab.early)
        return replace(made, disks=(*made.disks, *lab.disks))
    except OSError as err:
        raise LabError(f"the machine of {scenario.name} could not be made: {err.strerror} ({err.filename or folder})",
                       "free some 100 MB where TMPDIR points to, /tmp by default") from err


def run_all(lab: Lab, scenarios: Sequence[Scenario], folder: Path, workers: int) -> Iterator[Result]:
    """Results as they come. The caller may stop listening, or be interrupted: no machine survives this generator."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="machine")
    try:
        waiting: set[Future[Result]] = {
            pool.submit(_run_or_tell, lab, scenario, folder / f"{name}.console", stop)
            for name, scenario in zip(_file_names(scenarios), scenarios, strict=True)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _file_names(scenarios: Sequence[Scenario]) -> list[str]:
    """The names of the scenarios, numbered where one is run more than once."""
    names = [scenario.name for scenario in scenarios]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]


def _run_or_tell(lab: Lab, scenario: Scenario, console: Path, stop: threading.Event) -> Result:
    """What the lab cannot do for one scenario is that scenario's failure, not the end of the others."""
    started = time.monotonic()
    try:
        return run_scenario(lab, scenario, console, stop)
    except LabError as err:
        return Result(scenario=scenario, seconds=time.monotonic() - started, verdict="none", code="-",
                      problems=(str(err),), console=console)


def choose_or_take(word: str, qemu: Qemu, places: Places) -> Choice:
    """`word`: auto, or the name of an accelerator."""
    if word == "auto":
        return choose_accel(qemu, places.accel)
    return Choice(accel=Accel(word), reason="asked for by --accel")


def default_workers() -> int:
    """One more than there are processors: a third of its time a machine waits, for a GPU, a deadline or its agent."""
    return len(os.sched_getaffinity(0)) + 1
