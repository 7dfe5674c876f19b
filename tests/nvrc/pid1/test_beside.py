# SPDX-License-Identifier: Apache-2.0
"""The start of the process that serves metrics: as whom, and what of PID 1 is its to read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.daemons import Stage
from nvrc.machine.ports import Ports
from nvrc.machine.privileges import METRICS_ACCOUNT
from nvrc.machine.system import Node
from nvrc.nvml.answers import NvmlGpu
from nvrc.pid1.beside import start_metrics
from nvrc.vocabulary import paths

OWN, GROUP = tuple(METRICS_ACCOUNT), METRICS_ACCOUNT.gid


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(str(tmp_path))
    stage.program(paths.METRICS)
    stage.system.make_dir(paths.RUN)
    stage.system.publish(paths.REPORT, b"{}", 0o600)
    return stage


@pytest.mark.parametrize(("mode", "gpus", "account"), [
    pytest.param(0o666, 2, OWN, id="anybody opens the GPUs"), pytest.param(0o660, 2, (0, GROUP), id="the driver shuts others out"),
    pytest.param(0o660, 0, OWN, id="without GPUs"), pytest.param(None, 2, OWN, id="no node")])
def test_it_runs_as_its_own_user_unless_the_driver_wants_root(stage: Stage, mode: int | None, gpus: int, account: tuple[int, int]) -> None:
    if mode is not None:
        stage.system.nodes[paths.NVIDIA_CONTROL] = Node(0o020000 | mode, 195, 255)
    running = start_metrics(stage.system, stage.facts(gpus=gpus, cmdline="nvrc.metrics=9400"))
    (program,) = stage.system.programs
    assert program.privileges is not None
    assert tuple(program.privileges.account) == account
    assert running.program is program, "which is what it is started with again"


@pytest.mark.parametrize("ports", [Ports(metrics=17), Ports(), None])
def test_it_gets_the_socket_that_pid_1_listens_with(stage: Stage, ports: Ports | None) -> None:
    running = start_metrics(stage.system, replace(stage.facts(cmdline="nvrc.metrics=9400"), ports=ports))
    assert running.program.input == (ports.metrics if ports else -1)


def test_the_report_and_the_socket_are_given_to_its_group_and_nothing_else(stage: Stage) -> None:
    os.close(stage.system.listen_control(paths.CONTROL))
    start_metrics(stage.system, stage.facts(cmdline="nvrc.metrics=9400"))
    assert [line for line in stage.system.effects if line.startswith("own ")] == [
        f"own {paths.REPORT} 0:{GROUP} 640", f"own {paths.CONTROL} 0:{GROUP} 660"]


def test_where_nothing_was_written_it_starts_without(stage: Stage) -> None:
    os.unlink(stage.system.real_path(paths.REPORT))
    start_metrics(stage.system, stage.facts(cmdline="nvrc.metrics=9400"))
    assert stage.commands == [f"{paths.METRICS} --port 9400 --gpus"]


def test_it_is_given_the_serial_numbers_that_are_words(stage: Stage) -> None:
    told = ("1650123", "", "a b", "x,0000:41:00.0=y", "\u0661", "X7")
    facts = replace(stage.facts(cmdline="nvrc.metrics=9400"), gpus=tuple(
        NvmlGpu(number, f"0000:{40 + number}:00.0", "", "", number, "", serial) for number, serial in enumerate(told)))
    start_metrics(stage.system, facts)
    assert stage.commands == [f"{paths.METRICS} --port 9400 --gpus --serials 0000:40:00.0=1650123,0000:45:00.0=X7"]
