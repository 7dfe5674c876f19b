# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.daemons import Stage
from nvrc.machine.children import nobody
from nvrc.machine.privileges import hand_out, prepare
from nvrc.services import table
from nvrc.services.table import (
    EXPORTER,
    FABRIC_MANAGER,
    HOST_ENGINE,
    PERSISTENCED,
    SUBNET_MANAGER,
    Importance,
    Restart,
    Service,
    describe,
    read_pid,
    start,
)
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import BY_CODE, NvrcError

EXT = "/run/kata-extensions/gpu"
SERVICES = tuple(value for value in vars(table).values() if isinstance(value, Service))
GUID = "0x00000000deadbeef"


@pytest.mark.parametrize(("service", "root", "values", "command"), [
    pytest.param(PERSISTENCED, "", {"uvm": "on"}, "/bin/nvidia-persistenced --verbose --uvm-persistence-mode", id="persistenced"),
    pytest.param(PERSISTENCED, "", {"uvm": ""}, "/bin/nvidia-persistenced --verbose", id="persistenced-without-uvm"),
    pytest.param(PERSISTENCED, EXT, {"uvm": "on"}, f"{EXT}/bin/nvidia-persistenced --verbose --uvm-persistence-mode", id="persistenced-ext"),
    pytest.param(FABRIC_MANAGER, "", {}, "/bin/nv-fabricmanager -c /run/fabricmanager.cfg", id="fabric-nvl4"),
    pytest.param(FABRIC_MANAGER, EXT, {"guid": GUID}, f"{EXT}/bin/nv-fabricmanager -c /run/fabricmanager.cfg -g {GUID}", id="fabric-nvl5-ext"),
    pytest.param(SUBNET_MANAGER, "", {"guid": GUID}, f"/sbin/nvlsm -F /usr/share/nvidia/nvlsm/nvlsm.conf -g {GUID} -f stdout", id="nvlsm"),
    pytest.param(SUBNET_MANAGER, EXT, {"guid": GUID}, f"{EXT}/sbin/nvlsm -F {EXT}/usr/share/nvidia/nvlsm/nvlsm.conf -g {GUID} -f stdout", id="nvlsm-ext"),
    pytest.param(HOST_ENGINE, "", {}, "/bin/nv-hostengine --pid /run/nv-hostengine/nv-hostengine.pid --home-dir /tmp", id="hostengine"),
    pytest.param(EXPORTER, EXT, {}, f"{EXT}/bin/dcgm-exporter -k -f /etc/dcgm-exporter/default-counters.csv", id="exporter-ext"),
])
def test_command_lines(service: Service, root: str, values: dict[str, str], command: str) -> None:
    program = describe(service, root, values)
    assert " ".join((program.path, *program.args)) == command
    assert program.log_as == service.name


def test_daemons_that_gpus_depend_on_are_critical_and_helpers_come_back() -> None:
    assert {service.name for service in SERVICES if service.importance is Importance.CRITICAL} == {
        "nvlsm", "nv-fabricmanager", "nvidia-persistenced"}
    assert {service.name for service in SERVICES if service.restart is Restart.BOUNDED} == {
        "nv-hostengine", "dcgm-exporter", "nvrc-metrics"}
    for service in SERVICES:
        assert BY_CODE[service.code].step == service.step
        assert BY_CODE[service.stall_code].step == service.step


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(str(tmp_path))


def test_a_program_that_is_not_there_is_named_before_it_is_started(stage: Stage) -> None:
    with pytest.raises(NvrcError, match="/bin/nvidia-persistenced is missing or not executable") as caught:
        start(stage.system, PERSISTENCED, "", nobody)
    assert caught.value.code == "E_PERSISTENCED_START"
    assert stage.commands == []


def test_a_program_that_cannot_run_is_named_with_the_kernels_reason(stage: Stage) -> None:
    stage.program("/bin/nvidia-persistenced")
    stage.system.fail["start /bin/nvidia-persistenced"] = OSError(8, "Exec format error")
    with pytest.raises(NvrcError, match="cannot start /bin/nvidia-persistenced: Exec format error") as caught:
        start(stage.system, PERSISTENCED, "", nobody)
    assert "architecture" in caught.value.hint


def test_a_program_that_finds_no_room_is_not_called_broken(stage: Stage) -> None:
    stage.program("/bin/nvidia-persistenced")
    stage.system.fail["start /bin/nvidia-persistenced"] = OSError(11, "Resource temporarily unavailable")
    with pytest.raises(NvrcError, match="cannot start /bin/nvidia-persistenced: Resource temporarily") as caught:
        start(stage.system, PERSISTENCED, "", nobody)
    assert caught.value.hint.startswith("processes, files or memory are used up")


@pytest.mark.parametrize(("text", "pid"), [
    ("57\n", 57), ("", None), ("1\n", None), ("-5", None), ("many", None), ("99999999999", None), ("٣٤", None),
])
def test_a_pid_file_is_believed_only_with_a_pid_in_it(stage: Stage, text: str, pid: int | None) -> None:
    stage.system.put(paths.PERSISTENCED_PID, text)
    assert read_pid(stage.system, PERSISTENCED) == pid


@pytest.mark.parametrize("make", [
    pytest.param(os.mkfifo, id="a pipe, on which a reader would wait"),
    pytest.param(lambda path: os.symlink("/proc/1/stat", path), id="a link"), pytest.param(os.mkdir, id="a folder")])
def test_what_a_daemon_puts_in_place_of_its_pid_file_is_no_pid(stage: Stage, make: Callable[[str], None]) -> None:
    stage.system.put(paths.PERSISTENCED_PID, "57")
    os.unlink(stage.system.real_path(paths.PERSISTENCED_PID))
    make(stage.system.real_path(paths.PERSISTENCED_PID))
    assert read_pid(stage.system, PERSISTENCED) is None


OWN, SHARED = "/run/nvrc/nvidia-persistenced/socket", "/run/nvidia-persistenced/socket"


def test_others_get_the_socket_and_not_what_is_put_in_its_place(stage: Stage) -> None:
    system = stage.system
    prepare(system, PERSISTENCED.privileges, "E_INTERNAL")
    hand_out(system, PERSISTENCED.privileges, "E_INTERNAL")
    assert not system.exists(SHARED)
    os.mknod(system.real_path(OWN), stat.S_IFSOCK | 0o666)
    for _again in range(2):  # the second time it is there already
        hand_out(system, PERSISTENCED.privileges, "E_INTERNAL")
        assert os.path.samefile(system.real_path(OWN), system.real_path(SHARED))
    os.unlink(system.real_path(OWN))
    for target in ("/etc/shadow", "nowhere"):
        os.symlink(target, system.real_path(OWN))
        with pytest.raises(NvrcError, match=f"cannot give {SHARED} to other programs: .* is not a socket"):
            hand_out(system, PERSISTENCED.privileges, "E_INTERNAL")
        os.unlink(system.real_path(OWN))
    assert stat.S_ISSOCK(os.lstat(system.real_path(SHARED)).st_mode)
    os.mknod(system.real_path(OWN), stat.S_IFSOCK | 0o666)  # of a daemon that was started again
    hand_out(system, PERSISTENCED.privileges, "E_INTERNAL")
    assert os.path.samefile(system.real_path(OWN), system.real_path(SHARED))
    assert os.listdir(system.real_path("/run/nvidia-persistenced")) == ["socket"]


def test_no_pid_file_is_no_pid(stage: Stage) -> None:
    assert read_pid(stage.system, PERSISTENCED) is None
