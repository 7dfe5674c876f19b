# SPDX-License-Identifier: Apache-2.0
"""What PID 1 held, read from a machine's log, and whether it grew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvrc_lab.watch.census import FEWEST, Census, find_growth, read_censuses, render

FLAT = Census(at_s=60.0, rss=13000, anon=6400, descriptors=21, threads=1, zombies=0, processes=90, beside_rss=20000,
              beside_pss=19000, beside_descriptors=9)


def test_counts_are_read_from_the_log() -> None:
    line = ("[   60.000000] probe: census rss=13000 anon=6400 descriptors=21 threads=1 zombies=0 processes=90 beside_rss=20000 "
            "beside_pss=19000 beside_descriptors=9")
    assert read_censuses(["[    1.0] nvrc: READY", line, "probe: say census rss=1"]) == (FLAT,)


def lives(count: int = 40, **steps: int) -> list[Census]:
    """Counts that grow by so much in each round."""
    return [replace(FLAT, at_s=float(at), **{name: getattr(FLAT, name) + at * step for name, step in steps.items()})
            for at in range(count)]


ROWS = {
    "flat": (lives(), []),
    "a machine that still starts daemons again": ([replace(one, descriptors=40) for one in lives(10)] + lives(30), []),
    "it shrinks": (lives(descriptors=-1), []),
    "little": (lives(anon=12), []),
    "memory": (lives(anon=13), ["anon of PID 1 grew from 6588.5 to 6848.5 KiB, by more than 256: 13 a round"]),
    "a descriptor": (lives(20) + [replace(one, descriptors=22) for one in lives(20)],
                     ["descriptors of PID 1 grew from 21 to 22, by more than 0: 0.05 a round"]),
    "zombies": (lives(zombies=1), ["zombies of PID 1 grew from 14.5 to 34.5, by more than 0: 1 a round"]),
    "a kernel with more threads of its own": (lives(processes=1), []),
    "memory beside the pod": (lives(beside_rss=26), ["rss of the agent beside the pod grew from 20377 to 20897 KiB, by more than 512: 26 a round"]),
    "too few": (lives(FEWEST - 1), [f"{FEWEST - 1} counts of what PID 1 holds do not tell whether it grows; "
                                    f"{FEWEST} or more do"]),
}


@pytest.mark.parametrize(("censuses", "findings"), ROWS.values(), ids=ROWS)
def test_what_grows_is_told(censuses: list[Census], findings: list[str]) -> None:
    assert list(find_growth(censuses)) == findings


def test_the_table_has_early_late_and_most() -> None:
    assert "anon                   6574     6814     6868 KiB" in render(lives(anon=12))
    assert render(lives(FEWEST - 1)) == ()


def test_a_machine_without_an_agent_beside_the_pod_is_counted_as_well() -> None:
    line = "[   60.000000] probe: census rss=13000 anon=6400 descriptors=21 threads=1 zombies=0 processes=90"
    assert read_censuses([line]) == (replace(FLAT, beside_rss=0, beside_pss=0, beside_descriptors=0),)
