# SPDX-License-Identifier: Apache-2.0
"""Processes that end before the hand-over: whose ends they were, and what many of them cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from nvrc.engine.executor import BootError, Record
from nvrc.engine.facts import Facts
from nvrc.pid1.init import Init
from nvrc.services.table import FABRIC_MANAGER, Running, describe

AGENT, DAEMON, STARTED_S = 4711, 4712, 150.0


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(str(tmp_path))


@pytest.fixture
def init(system: FakeSystem) -> Init:
    """Agent and fabric manager are started when the clock says 150, and get pids that others may have had."""
    init = Init(system, ())
    running = Running(service=FABRIC_MANAGER, program=describe(FABRIC_MANAGER, "", {"guid": ""}), started_pid=DAEMON, pid=DAEMON,
                      since_s=STARTED_S)
    init.executor._facts = Facts(agent_pid=AGENT, services=(running,))
    init.executor._records["agent"] = Record(name="agent", start_s=STARTED_S)
    return init


def end(init: Init, system: FakeSystem, pid: int, at_s: float) -> None:
    system.clock = at_s
    system.ended = [(pid, 9)]
    init._reap()


def test_what_ended_as_they_began_were_others_with_their_pids(init: Init, system: FakeSystem) -> None:
    """A host engine that had an orphan end, and the agent get its pid, ended the VM."""
    for pid in (AGENT, DAEMON, 99):
        end(init, system, pid, STARTED_S - 1)
    assert init.ends_of_boot() == [(99, 9)]


def test_the_ends_of_their_own_count(init: Init, system: FakeSystem) -> None:
    end(init, system, AGENT, STARTED_S - 1)
    end(init, system, AGENT, STARTED_S)
    with pytest.raises(BootError, match="nv-fabricmanager was killed by SIGKILL during the boot"):
        end(init, system, DAEMON, STARTED_S + 1)
    assert init.ends_of_boot() == [(AGENT, 9), (DAEMON, 9)]


def test_no_other_daemon_matters_to_the_boot(init: Init, system: FakeSystem) -> None:
    services = tuple(replace(one, service=replace(one.service, importance=type(one.service.importance)("helper")))
                     for one in init.executor.facts.services)
    init.executor._facts = replace(init.executor.facts, services=services)
    end(init, system, DAEMON, STARTED_S)


@pytest.mark.long
def test_orphans_without_end_cost_what_there_is_of_pids(init: Init, system: FakeSystem) -> None:
    """A daemon may start one after another for as long as the boot takes."""
    for first in range(300, 100_300, 1000):
        system.ended = [(300 + number % 3000, 0) for number in range(first, first + 1000)]
        init._reap()
    assert len(init.ended_early) == 3000
