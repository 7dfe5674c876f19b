# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from fakes.daemons import Stage
from nvrc.machine.children import nobody
from nvrc.services.table import (
    EXPORTER,
    FABRIC_MANAGER,
    HOST_ENGINE,
    PERSISTENCED,
    SERVICES,
    SUBNET_MANAGER,
    Importance,
    Restart,
    Service,
    describe,
    read_pid,
    start,
)
from nvrc.vocabulary.errors import BY_CODE, NvrcError

EXT = "/run/kata-extensions/gpu"
GUID = "0x00000000deadbeef"


@pytest.mark.parametrize(("service", "root", "values", "command"), [
    pytest.param(PERSISTENCED, "", {"uvm": "on"}, "/bin/nvidia-persistenced --verbose --uvm-persistence-mode", id="persistenced"),
    pytest.param(PERSISTENCED, "", {"uvm": ""}, "/bin/nvidia-persistenced --verbose", id="persistenced-without-uvm"),
    pytest.param(PERSISTENCED, EXT, {"uvm": "on"}, f"{EXT}/bin/nvidia-persistenced --verbose --uvm-persistence-mode", id="persistenced-ext"),
    pytest.param(FABRIC_MANAGER, "", {}, "/bin/nv-fabricmanager -c /run/fabricmanager.cfg", id="fabric-nvl4"),
    pytest.param(FABRIC_MANAGER, EXT, {"guid": GUID}, f"{EXT}/bin/nv-fabricmanager -c /run/fabricmanager.cfg -g {GUID}", id="fabric-nvl5-ext"),
    pytest.param(SUBNET_MANAGER, "", {"guid": GUID}, f"/sbin/nvlsm -F /usr/share/nvidia/nvlsm/nvlsm.conf -g {GUID} -f stdout", id="nvlsm"),
    pytest.param(SUBNET_MANAGER, EXT, {"guid": GUID}, f"{EXT}/sbin/nvlsm -F {EXT}/usr/share/nvidia/nvlsm/nvlsm.conf -g {GUID} -f stdout", id="nvlsm-ext"),
    pytest.param(HOST_ENGINE, "", {}, "/bin/nv-hostengine --service-account nvidia-dcgm --home-dir /tmp", id="hostengine"),
    pytest.param(EXPORTER, EXT, {}, f"{EXT}/bin/dcgm-exporter -k -f /etc/dcgm-exporter/default-counters.csv", id="exporter-ext"),
])
def test_command_lines(service: Service, root: str, values: dict[str, str], command: str) -> None:
    program = describe(service, root, values)
    assert " ".join((program.path, *program.args)) == command
    assert program.log_as == service.name


def test_daemons_that_gpus_depend_on_are_critical_and_helpers_come_back() -> None:
    assert {service.name for service in SERVICES if service.importance is Importance.CRITICAL} == {
        "nvlsm", "nv-fabricmanager", "nvidia-persistenced"}
    assert {service.name for service in SERVICES if service.restart is Restart.BOUNDED} == {"nv-hostengine", "dcgm-exporter"}
    for service in SERVICES:
        assert BY_CODE[service.code].step == service.step
        assert BY_CODE[service.stall_code].step == service.step


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(str(tmp_path))


def test_a_program_that_is_not_there_is_named_before_it_is_started(stage: Stage) -> None:
    with pytest.raises(NvrcError, match="/bin/nvidia-persistenced is not there or not executable") as caught:
        start(stage.system, PERSISTENCED, "", nobody)
    assert caught.value.code == "E_PERSISTENCED_START"
    assert stage.commands == []


def test_a_program_that_cannot_run_is_named_with_the_kernels_reason(stage: Stage) -> None:
    stage.program("/bin/nvidia-persistenced")
    stage.system.fail["start /bin/nvidia-persistenced"] = OSError(8, "Exec format error")
    with pytest.raises(NvrcError, match="cannot start /bin/nvidia-persistenced: Exec format error"):
        start(stage.system, PERSISTENCED, "", nobody)


@pytest.mark.parametrize(("text", "pid"), [
    ("57\n", 57), ("", None), ("1\n", None), ("-5", None), ("many", None), ("99999999999", None), ("٣٤", None),
])
def test_a_pid_file_is_believed_only_with_a_pid_in_it(stage: Stage, text: str, pid: int | None) -> None:
    stage.system.put("/var/run/nvidia-persistenced/nvidia-persistenced.pid", text)
    assert read_pid(stage.system, PERSISTENCED) == pid


def test_no_pid_file_is_no_pid(stage: Stage) -> None:
    assert read_pid(stage.system, PERSISTENCED) is None
