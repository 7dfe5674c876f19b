# SPDX-License-Identifier: Apache-2.0
"""What happens in a long life, and what is told of it meanwhile."""

from __future__ import annotations

import pytest

from nvrc.services import table
from nvrc_lab.__main__ import main
from nvrc_lab.commands.life import KILLED_FIRST, ROUND, Teller, events, scenario_of
from nvrc_lab.watch.console import Story


def test_all_rounds_lie_between_ready_and_the_request_to_stop() -> None:
    first, *begun, end, last = events(3600.0)
    assert (first, tuple(begun[:5])) == ("heard 600000 nvrc: READY", KILLED_FIRST)
    head, *rounds = begun[5:]
    assert head == "loop 3600"
    assert (tuple(rounds), end, last) == (ROUND, "end", "kill 1 15")


def test_every_daemon_that_may_come_back_is_killed() -> None:
    services = [value for value in vars(table).values() if isinstance(value, table.Service)]
    assert {line.split()[1] for line in (*KILLED_FIRST, *ROUND) if line.startswith("kill ") and line.endswith(" 9")} == {
        service.name for service in services if service.restart is not table.Restart.NEVER}


def test_who_is_frozen_is_thawed_in_the_same_round() -> None:
    signals = [line.split()[1:] for line in ROUND if line.startswith("kill ") and not line.endswith(" 9")]
    assert signals == [["nvrc-metrics", "19"], ["nvrc-metrics", "18"]]


def test_the_machine_has_time_for_more_than_its_rounds() -> None:
    assert scenario_of(3600.0).deadline_s > 3600.0


def test_the_latest_count_is_told_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(is_json=False)
    for now_s in (10.0, 61.0, 70.0, 130.0):
        teller.hear(Story(), (f"[ {now_s}] probe: census rss=1 zombies=0", "x"), now_s)
    assert capsys.readouterr().out.splitlines() == ["     61 s  round 2  rss=1 zombies=0", "    130 s  round 4  rss=1 zombies=0"]


def test_no_time_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["life", "--hours", "0"]) == 2
    assert "--hours 0 is not above zero" in capsys.readouterr().err
