# SPDX-License-Identifier: Apache-2.0
"""What a soak boots, beside what, and how it tells of surprises."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc_lab.commands import soak
from nvrc_lab.commands.soak import Tally, as_json, busy, mix, summarise
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.hosttime import Clocks, Host
from nvrc_lab.run.runner import Result
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.values import Scenario
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.outcome import gather
from nvrc_lab.watch.watch import Ending, Run


def scenario(name: str) -> Scenario:
    return parse_scenario("summary: s\nexpect: {verdict: ready}\n", name, f"{name}.yaml")


def result(name: str, *problems: str) -> Result:
    run = Run(story=Story(), ending=Ending.GUEST, status=0, complaint="", seconds=10.0, console=Path("/c"),
              host=Host(starved_s=4.0, load=2.0), clocks=Clocks(first=(1.0, 2.0), last=(9.0, 10.5)))
    return Result(scenario=scenario(name), seconds=10.0, verdict="ready", code="OK", problems=problems,
                  console=Path(f"/lab/{name}.console"), told=gather(run, ()))


def test_a_mix_has_each_before_any_twice_and_is_the_same_for_the_same_seed() -> None:
    rows = [scenario(name) for name in ("a", "b", "c", "d", "e")]
    mixed = mix(rows, 12, 1)
    assert mixed == mix(rows, 12, 1) != mix(rows, 12, 2)
    assert Counter(one.name for one in mixed[:5]) == Counter(one.name for one in mixed[5:10]) == Counter("abcde")
    assert len(mixed) == 12


def test_busy_processes_are_there_for_as_long_as_the_soak() -> None:
    before = children()
    with busy(2):
        assert len(children() - before) == 2
    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def test_surprises_are_counted_and_their_consoles_named() -> None:
    tally = Tally()
    for one in (result("cpu"), result("gpu-1", "verdict: expected ready, found none"), result("cpu"), result("cpu")):
        tally = tally.add(one, 9.0)
    assert summarise(tally, 8, 77.0) == [
        "1 surprises in 4 boots (25.0 %), 77 s",
        "beside 8 busy processes: load 9.0 on average; of 40 s machines waited 16 s for a processor",
        "the guests' clocks and the host's were at most 0.5 s apart",
        "  1 x gpu-1: verdict: expected ready, found none", "  /lab/gpu-1.console"]
    told = json.loads(json.dumps(as_json(tally, 8, 77.0)))
    assert (told["boots"], told["surprises"], told["rows"][0]["scenario"]) == (4, 1, "gpu-1")


def test_none_is_no_proof_of_never() -> None:
    tally = Tally()
    for _ in range(60):
        tally = tally.add(replace(result("cpu"), told=None), 1.0)
    assert summarise(tally, 0, 9.0)[0] == "0 surprises in 60 boots (fewer than 5.0 % by 95 % certainty), 9 s"


@pytest.mark.parametrize(("words", "what"), [
    (("--boots", "0"), "--boots 0 is less than 1"), (("--load", "-1"), "--load -1 is less than 0"),
    (("nothing-is-called-so",), "no scenario has nothing-is-called-so in its name"),
])
def test_orders_that_make_no_sense(words: tuple[str, ...], what: str) -> None:
    parser = argparse.ArgumentParser()
    soak.add_arguments(parser)
    with pytest.raises(LabError, match=what):
        soak.run(parser.parse_args(words))
