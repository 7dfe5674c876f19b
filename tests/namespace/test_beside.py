# SPDX-License-Identifier: Apache-2.0
"""The agent beside the pod that is killed, frozen, floods or cannot have its port: the real PID 1 and its workload never
notice.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from namespace.guest import Guest, boot
from nvrc.machine.control import ask
from nvrc.report.status import ServiceState, Status, from_json
from nvrc.vocabulary import paths
from nvrc.vocabulary.verdict import Verdict

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
PROGRAMS = {"agent": "/usr/bin/kata-agent", "daemon": paths.METRICS}
NAME = "nvrc-metrics"


@pytest.fixture
def root(tmp_path: Path, compiled: Callable[[str], bytes]) -> FakeSystem:
    system = bare_guest(str(tmp_path))
    system.put("/proc/self/oom_score_adj")
    system.put("/proc/cmdline", "quiet nvrc.timeout.host_end=0 nvrc.timeout.farewell=1 nvrc.metrics=9400\n")
    system.put("/etc/behaviour", "end-on-term hold")
    for name, path in PROGRAMS.items():
        system.put(path, compiled(name), 0o755)
    return system


@pytest.fixture
def run(root: FakeSystem) -> Iterator[Callable[[str], Guest]]:
    guests: list[Guest] = []

    def start(daemons: str = "") -> Guest:
        root.put("/etc/daemons", daemons)
        guests.append(boot(root.root))
        guests[-1].read_until("nvrc: READY in ")
        over = time.monotonic() + 30
        while not os.path.exists(root.real_path(paths.CONTROL)):
            assert time.monotonic() < over
            time.sleep(0.01)
        return guests[-1]

    yield start
    for guest in guests:
        guest.end()


Run = Callable[[str], Guest]


def status(root: FakeSystem) -> Status:
    return from_json(ask(root.real_path(paths.CONTROL), 5.0))


def until(root: FakeSystem, holds: Callable[[Status], bool], limit_s: float = 30.0) -> Status:
    over = time.monotonic() + limit_s
    while not holds(found := status(root)):
        assert time.monotonic() < over, found
        time.sleep(0.02)
    return found


def service(found: Status) -> tuple[ServiceState, int] | None:
    return next(((one.state, one.restarts) for one in found.services if one.name == NAME), None)


def is_up(found: Status) -> bool:
    row = service(found)
    return row is not None and row[0] is ServiceState.RUNNING


def end(guest: Guest, root: FakeSystem) -> None:
    """In order, and the workload was there until then."""
    assert next(one for one in status(root).services if one.name == "agent").restarts == 0
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("END code=OK")
    assert guest.found("guest: zombies=0 ")
    assert not guest.found("FATAL")


def test_one_that_is_killed_comes_back_and_degrades_nothing(run: Run, root: FakeSystem) -> None:
    guest = run("")
    until(root, is_up)
    os.kill(guest.daemon(NAME), signal.SIGKILL)
    found = until(root, lambda found: service(found) == (ServiceState.RUNNING, 1))
    assert found.verdict is Verdict.NO_GPU
    end(guest, root)


def test_one_that_is_frozen_costs_nobody_anything_not_even_the_end(run: Run, root: FakeSystem) -> None:
    guest = run("")
    until(root, is_up)
    os.kill(guest.daemon(NAME), signal.SIGSTOP)
    for _ in range(50):
        assert is_up(status(root))
    assert status(root).verdict is Verdict.NO_GPU
    end(guest, root)


def test_one_that_floods_leaves_the_init_time_for_others(run: Run, root: FakeSystem) -> None:
    guest = run("metrics-flood")
    found = until(root, lambda found: is_up(found) and found.log_messages > 1000)
    for _ in range(50):
        found = status(root)
    assert (service(found), found.verdict) == ((ServiceState.RUNNING, 0), Verdict.NO_GPU)
    end(guest, root)


def test_one_whose_port_is_taken_is_told_with_the_port_and_tried_again(run: Run, root: FakeSystem) -> None:
    guest = run("metrics-port-taken")
    found = until(root, lambda found: (row := service(found)) is not None and row[1] > 0)
    assert found.verdict is Verdict.NO_GPU
    end(guest, root)
    line = guest.found("nvrc: warn nvrc-metrics")[0]
    assert line.startswith("nvrc: warn nvrc-metrics (port 9400) exited with status 98 ")
    assert line.endswith("s after its start: another program listens there; it is restarted in 1 s")
