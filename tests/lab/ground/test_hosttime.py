# SPDX-License-Identifier: Apache-2.0
"""The time that a machine had, and two clocks side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nvrc_lab.ground.hosttime import Clocks, Host, starved_s


def account(folder: Path, rows: dict[str, str]) -> Path:
    for thread, text in rows.items():
        path = folder / "7" / "task" / thread / "schedstat"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return folder


ACCOUNTS = {
    "the most unlucky thread": ({"7": "10 1000000000 3", "8": "10 2500000000 3"}, 2.5),
    "no account": ({}, 0.0),
    "an account that cannot be read": ({"7": "10", "8": "x y z"}, 0.0),
}


@pytest.mark.parametrize(("rows", "expected"), ACCOUNTS.values(), ids=ACCOUNTS)
def test_time_without_a_processor(tmp_path: Path, rows: dict[str, str], expected: float) -> None:
    assert starved_s(7, account(tmp_path, rows)) == expected


def test_this_process_had_most_of_its_time() -> None:
    assert 0 <= starved_s(os.getpid()) < 3600


NOTES = {
    "an idle host": (Host(starved_s=1.0, load=0.5), 45.0, ""),
    "a busy one": (Host(starved_s=31.0, load=14.25), 76.0,
                   "; the host was busy: of 76 s the machine waited 31 s for a processor, load 14.2"),
}


@pytest.mark.parametrize(("host", "seconds", "expected"), NOTES.values(), ids=NOTES)
def test_a_time_out_says_what_the_host_did(host: Host, seconds: float, expected: str) -> None:
    assert host.note(seconds) == expected


CLOCKS = {
    "alike": ([("[    1.000000] a", 2.0), ("[   21.000000] b", 22.3)], ""),
    "lines that are heard late": ([("[    1.000000] a", 2.0), ("[    4.000000] b", 9.0)], ""),
    "away": ([("[    3.000000] a", 4.0), ("x", 9.0), ("[  348.000000] b", 30.7)],
             "345.0 s in the guest were 26.7 s on the host"),
    "behind": ([("<6>[    1.000000] a", 0.0), ("[    2.000000] b", 20.0)], "1.0 s in the guest were 20.0 s on the host"),
    "no stamp": ([("a", 1.0), ("b", 60.0)], ""),
}


@pytest.mark.parametrize(("lines", "expected"), CLOCKS.values(), ids=CLOCKS)
def test_clocks_that_do_not_go_alike_are_told(lines: list[tuple[str, float]], expected: str) -> None:
    clocks = Clocks()
    for text, host_s in lines:
        clocks = clocks.hear(text, host_s)
    assert expected in clocks.problem()
    assert bool(expected) is bool(clocks.problem())
