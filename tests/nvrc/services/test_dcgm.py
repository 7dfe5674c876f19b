# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.daemons import FIRST_PID, Stage, exited
from nvrc.engine.facts import FailedWithFacts
from nvrc.machine.privileges import HOST_ENGINE
from nvrc.steps import dcgm as step
from nvrc.vocabulary.errors import NvrcError

ENGINE = "/bin/nv-hostengine --pid /run/nv-hostengine/nv-hostengine.pid --home-dir /tmp"
EXPORTER = "/bin/dcgm-exporter -k -f /etc/dcgm-exporter/default-counters.csv"
READY = 'dcgm-exporter: level=INFO msg="Starting webserver" address=:9400'


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(str(tmp_path))
    stage.program("/bin/nv-hostengine")
    stage.program("/bin/dcgm-exporter")
    stage.system.put("/etc/dcgm-exporter/default-counters.csv")
    return stage


def test_both_start_one_after_the_other(stage: Stage) -> None:
    stage.ends(2)
    stage.says(3, "dcgm-exporter: Starting dcgm-exporter")
    stage.says(4, READY)
    facts = step.run(stage.system, stage.facts())
    assert stage.commands == [ENGINE, EXPORTER]
    assert [(running.service.name, running.pid) for running in facts.services] == [
        ("nv-hostengine", None), ("dcgm-exporter", FIRST_PID + 1)]
    assert facts.warnings == ()
    assert step.tell(facts) == "nv-hostengine, dcgm-exporter"
    assert step.deadline_s(facts) == 250


@pytest.mark.parametrize(("gid", "pid"), [(HOST_ENGINE.account.gid, 88), (0, None)], ids=["its own", "the agent's"])
def test_the_host_engines_pid_is_in_its_file(stage: Stage, gid: int, pid: int | None) -> None:
    stage.system.put("/run/nv-hostengine/nv-hostengine.pid", "88\n")
    stage.system.put_group(88, gid)
    stage.ends(2)
    stage.says(4, READY)
    assert step.run(stage.system, stage.facts()).services[0].pid == pid


@pytest.mark.parametrize(("lacking", "what"), [
    ("/bin/nv-hostengine", "no DCGM: /bin/nv-hostengine is not in the image"),
])
def test_without_a_host_engine_nothing_is_started(stage: Stage, lacking: str, what: str) -> None:
    os.unlink(stage.system.real_path(lacking))
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts())
    assert (caught.value.code, caught.value.what) == ("E_DCGM", what)
    assert stage.commands == []


@pytest.mark.parametrize(("lacking", "warning"), [
    ("/bin/dcgm-exporter", "no DCGM exporter: /bin/dcgm-exporter is not in the image"),
    ("/etc/dcgm-exporter/default-counters.csv", "no DCGM exporter: /etc/dcgm-exporter/default-counters.csv is not in the image"),
])
def test_without_an_exporter_the_host_engine_runs_alone_and_degrades(stage: Stage, lacking: str, warning: str) -> None:
    os.unlink(stage.system.real_path(lacking))
    stage.ends(2)
    with pytest.raises(FailedWithFacts) as caught:
        step.run(stage.system, stage.facts())
    assert (caught.value.code, caught.value.what) == ("E_DCGM", warning)
    assert step.tell(caught.value.facts) == "nv-hostengine", "it is looked after, and stopped in the end"
    assert stage.commands == [ENGINE]


@pytest.mark.parametrize(("status", "line", "what"), [
    pytest.param(exited(1), "Err: Failed to start DCGM Server: -7", "nv-hostengine exited with status 1", id="fails"),
    pytest.param(0, "", "", id="daemonises"),
])
def test_the_host_engines_parent_has_to_end_well(stage: Stage, status: int, line: str, what: str) -> None:
    stage.says(1, f"nv-hostengine: {line}")
    stage.ends(2, status)
    stage.says(3, READY)
    if not what:
        assert len(step.run(stage.system, stage.facts()).services) == 2
        return
    with pytest.raises(NvrcError, match=what) as caught:
        step.run(stage.system, stage.facts())
    assert caught.value.what.endswith(f"its last message: {line}")


def test_an_exporter_that_ends_degrades(stage: Stage) -> None:
    stage.ends(2)
    stage.ends(3, exited(1), FIRST_PID + 1)
    with pytest.raises(FailedWithFacts) as caught:
        step.run(stage.system, stage.facts())
    assert caught.value.what.startswith("no DCGM exporter: dcgm-exporter exited with status 1")
    assert len(caught.value.facts.services) == 1


def test_a_host_engine_that_hangs_runs_out_of_time(stage: Stage) -> None:
    with pytest.raises(NvrcError, match=r"nv-hostengine was not ready 7.0 s after its start; it printed nothing"):
        step.run(stage.system, stage.facts(cmdline="nvrc.timeout.command=7"))


def test_everything_comes_from_the_extension_but_the_counters(stage: Stage) -> None:
    root = "/run/kata-extensions/gpu"
    stage.program(f"{root}/bin/nv-hostengine")
    stage.program(f"{root}/bin/dcgm-exporter")
    stage.ends(2)
    stage.says(4, READY)
    step.run(stage.system, stage.facts(gpu_root=root))
    assert stage.commands == [root + ENGINE, root + EXPORTER]
