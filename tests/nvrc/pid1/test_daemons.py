# SPDX-License-Identifier: Apache-2.0
"""Daemons after the boot: every end of every one, restarts with their pauses, and the stop, on a fake clock."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from fakes.daemons import exited
from fakes.system import FakeSystem, bare_guest
from fakes.trouble import told
from nvrc.machine.privileges import prepare
from nvrc.pid1.daemons import Daemons
from nvrc.services.table import (
    EXPORTER,
    FABRIC_MANAGER,
    HOST_ENGINE,
    METRICS,
    PERSISTENCED,
    SUBNET_MANAGER,
    Running,
    Service,
    describe,
)
from nvrc.vocabulary.trouble import Trouble

SEGV = int(signal.SIGSEGV)


def running(service: Service, pid: int | None, starter: int | None = None) -> Running:
    return Running(service=service, program=describe(service, "", {"guid": "0x1", "port": "9400", "driver_root": "", "gpus": ""}), started_pid=starter or pid or 0, pid=pid,
                   since_s=100.0)


ALL = (running(SUBNET_MANAGER, 51), running(FABRIC_MANAGER, 52), running(PERSISTENCED, 54, 53), running(HOST_ENGINE, 56, 55),
       running(EXPORTER, 57))


class Watch:
    def __init__(self, root: str, *daemons: Running, confidential: bool = False, strict: bool = False) -> None:
        self.system: FakeSystem = bare_guest(root)
        self.news: list[Trouble | None] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.daemons = Daemons(self.system, daemons, is_confidential=confidential, is_strict=strict,
                               later=lambda after_s, act: self.timers.append((after_s, act)), changed=self.news.append)

    def ends(self, pid: int, status: int = SEGV) -> bool:
        self.system.clock += 10
        return self.daemons.child_ended(pid, status)

    def expire(self) -> float:
        after_s, act = self.timers.pop(0)
        self.system.clock += after_s
        act()
        return after_s

    @property
    def states(self) -> list[str]:
        return [record.state.value for record in self.daemons.records]

    @property
    def started(self) -> list[str]:
        return [program.path for program in self.system.programs]

    @property
    def signals(self) -> list[str]:
        return [effect for effect in self.system.effects if effect.startswith("signal")]


class MakeWatch(Protocol):
    def __call__(self, *daemons: Running, confidential: bool = False, strict: bool = False) -> Watch: ...


@pytest.fixture
def watch(tmp_path: Path) -> MakeWatch:
    def make(*daemons: Running, confidential: bool = False, strict: bool = False) -> Watch:
        return Watch(str(tmp_path), *daemons, confidential=confidential, strict=strict)

    return make


@pytest.mark.parametrize("pid", [51, 52])
@pytest.mark.parametrize("status", [SEGV, 0, exited(1)])
def test_the_fabric_never_comes_back_and_its_loss_degrades(watch: MakeWatch, pid: int, status: int) -> None:
    subject = watch(*ALL)
    assert subject.ends(pid, status)
    assert (subject.timers, subject.started, subject.daemons.ending) == ([], [], None)
    assert not subject.daemons.is_whole
    assert subject.states[pid - 51] == "failed"
    (news,) = told(subject.news)
    assert news.startswith("E_SERVICE_LOST nv")
    assert news.endswith(" 10.0 s after its start; it will not be restarted")
    assert subject.news[0] is not None and subject.news[0].service == ALL[pid - 51].service.name
    assert subject.daemons.records[pid - 51].pid is None


def test_strict_ends_the_vm_over_a_critical_daemon(watch: MakeWatch) -> None:
    subject = watch(*ALL, strict=True)
    subject.ends(52)
    assert subject.daemons.ending is not None
    assert (subject.daemons.ending.code, subject.daemons.ending.what) == (
        "E_SERVICE_LOST", "nv-fabricmanager was killed by SIGSEGV 10.0 s after its start, and nvrc.strict is on")
    assert subject.daemons.ending.hint


def test_persistenced_stays_away_from_confidential_gpus(watch: MakeWatch) -> None:
    subject = watch(*ALL, confidential=True)
    subject.ends(54)
    assert (subject.timers, subject.started) == ([], [])
    assert subject.states[2] == "failed"


def test_persistenced_comes_back_once_elsewhere(watch: MakeWatch) -> None:
    subject = watch(*ALL)
    pid_file = "/run/nvrc/nvidia-persistenced/nvidia-persistenced.pid"
    subject.ends(54)
    assert subject.states[2] == "restarting"
    assert subject.expire() == 1
    assert subject.started == ["/bin/nvidia-persistenced"]
    assert subject.states[2] == "starting"
    subject.system.put(pid_file, "90\n")
    subject.system.put_group(90, PERSISTENCED.privileges.account.gid)
    assert subject.ends(4711, 0), "the process that was started ends when the daemon is up"
    record = subject.daemons.records[2]
    assert (record.state.value, record.pid, record.restarts, record.since_s) == ("running", 90, 1, 111.0)
    assert subject.daemons.is_whole
    subject.ends(90)
    assert subject.states[2] == "failed"
    assert told(subject.news) == (
        "nvidia-persistenced was killed by SIGSEGV 10.0 s after its start; it is restarted in 1 s",
        "nvidia-persistenced was restarted",
        "E_SERVICE_LOST nvidia-persistenced was killed by SIGSEGV 20.0 s after its start; it will not be restarted")


@pytest.mark.parametrize(("make", "news"), [
    (lambda path: os.mknod(path, stat.S_IFSOCK | 0o666), ()),
    (lambda path: os.symlink("/etc/shadow", path),
     ("nvidia-persistenced has nothing for other programs: cannot give /run/nvidia-persistenced/socket to other programs: "
      "what is in its place is not a socket",))], ids=["a socket", "a link"])
def test_the_socket_of_one_that_was_started_again_is_handed_out(watch: MakeWatch, make: Callable[[str], None],
                                                                news: tuple[str, ...]) -> None:
    subject = watch(*ALL)
    subject.ends(54)
    subject.expire()
    prepare(subject.system, PERSISTENCED.privileges, "E_INTERNAL")
    make(subject.system.real_path("/run/nvrc/nvidia-persistenced/socket"))
    subject.ends(4711, 0)
    assert told(subject.news)[2:] == news
    assert os.path.lexists(subject.system.real_path("/run/nvidia-persistenced/socket")) is not bool(news)


def test_a_restart_that_does_not_come_up_counts(watch: MakeWatch) -> None:
    subject = watch(*ALL)
    subject.ends(54)
    subject.expire()
    subject.ends(4711, exited(1))
    assert subject.states[2] == "failed"


def test_helpers_come_back_later_each_time_and_not_for_ever(watch: MakeWatch) -> None:
    subject = watch(running(EXPORTER, 57))
    pid, pauses = 57, []
    for number in range(5):
        subject.ends(pid)
        pauses.append(subject.expire())
        pid = 4711 + number
        assert subject.daemons.records[0].pid == pid
    subject.ends(pid)
    assert pauses == [1, 2, 4, 8, 16]
    assert (subject.states, subject.timers) == (["failed"], [])
    assert subject.daemons.records[0].restarts == 5
    assert len(subject.started) == 5


def test_a_helper_is_never_worth_the_vm(watch: MakeWatch) -> None:
    subject = watch(running(EXPORTER, 57), strict=True)
    subject.system.fail["start /bin/dcgm-exporter"] = OSError(2, "No such file or directory")
    subject.ends(57)
    subject.expire()
    assert subject.states == ["failed"]
    assert subject.daemons.records[0].detail == "cannot be restarted: No such file or directory"
    assert subject.daemons.ending is None


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("service", [METRICS, PERSISTENCED], ids=lambda service: service.name)
def test_what_a_container_has_used_up_costs_no_try(watch: MakeWatch, service: Service, number: int) -> None:
    """For an hour there are no processes, files or no memory; then the daemon has all the tries of its rule left."""
    subject = watch(running(service, 57))
    path = subject.daemons._all[0].running.program.path
    subject.ends(57)
    subject.system.fail[f"start {path}"] = OSError(number, os.strerror(number))
    subject.expire()
    pauses = [subject.expire() for _ in range(360)]
    assert (subject.states, set(pauses)) == (["restarting"], {10.0})
    assert len([one for one in subject.news if one and "another try follows every 10 s" in one.what]) == 1
    del subject.system.fail[f"start {path}"]
    subject.expire()
    assert subject.states[0] in ("running", "starting")
    assert (subject.daemons.records[0].restarts, subject.timers) == (1, [])


# Which process is whose


def test_others_are_not_ours(watch: MakeWatch) -> None:
    subject = watch(*ALL)
    assert not subject.ends(999)
    assert set(subject.states) == {"running"}


def test_the_end_of_the_starter_is_not_the_end_of_its_daemon(watch: MakeWatch) -> None:
    subject = watch(*ALL)
    assert subject.ends(53, 0)
    assert (subject.states[2], subject.news) == ("running", [])
    assert not subject.ends(53, 0), "a later process may have the same pid"


def test_a_daemon_whose_pid_file_came_late_is_known_by_it(watch: MakeWatch) -> None:
    subject = watch(running(HOST_ENGINE, None, 55))
    assert not subject.ends(70)
    subject.system.put("/run/nv-hostengine/nv-hostengine.pid", "70\n")
    assert subject.ends(70)
    assert subject.states == ["restarting"]


def test_the_pid_file_of_the_daemon_before_is_not_believed(watch: MakeWatch) -> None:
    subject = watch(running(HOST_ENGINE, 56, 55))
    subject.system.put("/run/nv-hostengine/nv-hostengine.pid", "56\n")
    subject.ends(56)
    subject.expire()
    subject.ends(4711, 0)
    assert subject.daemons.records[0].pid is None
    subject.system.put("/run/nv-hostengine/nv-hostengine.pid", "80\n")
    assert subject.ends(80)


# Stop


def test_all_are_asked_to_stop_the_last_one_first(watch: MakeWatch) -> None:
    subject = watch(*ALL)
    subject.daemons.stop()
    assert subject.signals == [f"signal {pid} {int(signal.SIGTERM)}" for pid in (57, 56, 54, 52, 51)]
    assert subject.daemons.is_any_alive
    for pid in (57, 56, 54, 52, 51):
        subject.ends(pid, int(signal.SIGTERM))
    assert set(subject.states) == {"stopped"}
    assert not subject.daemons.is_any_alive
    assert (subject.daemons.is_whole, subject.timers) == (True, []), "nobody is started again"


def test_those_that_do_not_stop_are_killed(watch: MakeWatch) -> None:
    subject = watch(*ALL)
    subject.daemons.stop()
    for pid in (57, 56, 54):
        subject.ends(pid, 0)
    subject.daemons.kill()
    assert subject.signals[-2:] == [f"signal 51 {int(signal.SIGKILL)}", f"signal 52 {int(signal.SIGKILL)}"]


def test_a_restart_that_is_due_during_the_stop_does_not_happen(watch: MakeWatch) -> None:
    subject = watch(running(EXPORTER, 57))
    subject.ends(57)
    subject.daemons.stop()
    assert subject.states == ["stopped"]
    subject.expire()
    assert (subject.started, subject.states) == ([], ["stopped"])


def test_one_that_is_gone_or_was_never_found_needs_no_stop(watch: MakeWatch) -> None:
    subject = watch(running(HOST_ENGINE, None, 55), running(EXPORTER, 57))
    subject.system.fail[f"signal 57 {int(signal.SIGTERM)}"] = ProcessLookupError(3, "No such process")
    subject.daemons.stop()
    assert subject.states == ["stopped", "stopped"]
    assert subject.signals == []


def test_one_that_is_found_in_its_file_at_last_is_stopped(watch: MakeWatch) -> None:
    subject = watch(running(HOST_ENGINE, None, 55))
    subject.system.put("/run/nv-hostengine/nv-hostengine.pid", "70\n")
    subject.system.put_group(70, HOST_ENGINE.privileges.account.gid)
    subject.daemons.stop()
    assert subject.signals == [f"signal 70 {int(signal.SIGTERM)}"]


def test_a_process_of_others_that_stands_in_a_pid_file_is_not_stopped(watch: MakeWatch) -> None:
    """The daemon writes it: the agent, another daemon, a container."""
    subject = watch(running(HOST_ENGINE, None, 55))
    subject.system.put("/run/nv-hostengine/nv-hostengine.pid", "70\n")
    subject.system.put_group(70, 0)
    subject.daemons.stop()
    subject.daemons.kill()
    assert (subject.signals, subject.states) == ([], ["stopped"])


def test_tries_are_forgiven_once_a_helper_has_run_for_long(tmp_path: Path) -> None:
    watch = Watch(str(tmp_path), running(EXPORTER, 57))
    pid, pauses = 57, []
    for _ in range(4):
        watch.ends(pid)
        pauses.append(watch.expire())
        pid = watch.daemons.records[0].pid or 0
    watch.system.clock += 600
    watch.ends(pid)
    pauses.append(watch.expire())
    assert pauses == [1, 2, 4, 8, 1]
    assert watch.daemons.records[0].restarts == 5
    assert watch.states == ["running"]


def test_who_goes_first_when_memory_is_short() -> None:
    scores = {one.service.name: one.program.oom_score_adj for one in ALL}
    assert scores == {"nvlsm": -900, "nv-fabricmanager": -900, "nvidia-persistenced": -900, "nv-hostengine": 500, "dcgm-exporter": 500}
    assert describe(METRICS, "", {"port": "1", "gpus": "", "driver_root": ""}).oom_score_adj == 500


def test_metrics_whose_port_is_taken_name_it(watch: MakeWatch) -> None:
    subject = watch(replace(running(METRICS, 57), about="port 9400"))
    pid = 57
    for number in range(5):
        subject.ends(pid, exited(errno.EADDRINUSE))
        subject.expire()
        pid = 4711 + number
    subject.ends(pid, exited(errno.EADDRINUSE))
    assert told(subject.news)[0] == ("nvrc-metrics (port 9400) exited with status 98 10.0 s after its start: another program listens there; "
                                     "it is restarted in 1 s")
    last = subject.news[-1]
    assert last is not None
    assert last.code == "E_METRICS"
    assert last.what == "nvrc-metrics (port 9400) exited with status 98 10.0 s after its start: another program listens there; it will not be restarted"
    assert "name a free one with nvrc.metrics=PORT" in last.hint
