# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.daemons import FIRST_PID, Stage, exited, management
from nvrc.engine.facts import FailedWithFacts
from nvrc.services import launch
from nvrc.services.fabric_config import edit, items
from nvrc.services.subnet import find_port, natural
from nvrc.steps import fabric as step
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode

STOCK = """# Fabric Manager
LOG_LEVEL=4
LOG_FILE_NAME=/var/log/fabricmanager.log
LOG_USE_SYSLOG=0
DAEMONIZE=1
FABRIC_MODE=0
FABRIC_MODE_RESTART=0
  STATE_FILE_NAME=/var/tmp/fabricmanager.state
#FM_CMD_UNIX_SOCKET_PATH=/nowhere
FM_CMD_UNIX_SOCKET_PATH=
TOPOLOGY_FILE_PATH=/usr/share/nvidia/nvswitch
"""
CFG = "/usr/share/nvidia/nvswitch/fabricmanager.cfg"
EXT = "/run/kata-extensions/gpu"
MANAGER = "/bin/nv-fabricmanager"
MARKER = "nv-fabricmanager[52]: FM starting NvLink Inband"
GUID = "0x946dae0300f1c2d4"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(str(tmp_path))
    stage.system.put(CFG, STOCK)
    stage.program(MANAGER)
    return stage


def put_port(stage: Stage, device: str, owner: str = "", *, mask: str = "0xa651e848\n", state: str = "4: ACTIVE\n",
             gid: str = "fe80:0000:0000:0000:946d:ae03:00f1:c2d4\n") -> None:
    if owner:
        os.makedirs(stage.system.real_path(f"/sys/bus/pci/devices/{owner}/infiniband/{device}"), exist_ok=True)
    root = f"/sys/class/infiniband/{device}/ports/1"
    for name, text in (("cap_mask", mask), ("state", state), ("gids/0", gid)):
        os.makedirs(stage.system.real_path(f"{root}/gids"), exist_ok=True)
        if text:
            stage.system.put(f"{root}/{name}", text)


# Configuration


def test_the_configuration_keeps_what_is_not_ours(stage: Stage) -> None:
    stage.says(1, MARKER)
    step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert stage.system.text("/run/fabricmanager.cfg") == """# Fabric Manager
LOG_LEVEL=4
LOG_FILE_NAME=/run/nvidia-fabricmanager/fabricmanager.log
LOG_USE_SYSLOG=1
DAEMONIZE=0
FABRIC_MODE=0
FABRIC_MODE_RESTART=0
STATE_FILE_NAME=/run/nvidia-fabricmanager/fabricmanager.state
#FM_CMD_UNIX_SOCKET_PATH=/nowhere
FM_CMD_UNIX_SOCKET_PATH=/run/nvidia-fabricmanager/socket
TOPOLOGY_FILE_PATH=/usr/share/nvidia/nvswitch
PARTITION_RAIL_POLICY=greedy
"""
    assert os.stat(stage.system.real_path("/run/fabricmanager.cfg")).st_mode & 0o777 == 0o400


@pytest.mark.parametrize(("mode", "fabric", "rail"), [
    (Mode.GPU_NVL4, "0", "greedy"), (Mode.SERVICE_NVL4, "1", "greedy"),
    (Mode.GPU_NVL5, "0", "symmetric"), (Mode.SERVICE_NVL5, "1", "symmetric"),
])
def test_mode_and_rail_policy_follow_the_machine(stage: Stage, mode: Mode, fabric: str, rail: str) -> None:
    if mode.nvlink == 5:
        stage.program("/sbin/nvlsm")
        put_port(stage, "mlx5_0", management(0).bdf)
        stage.says(0.5, "nvlsm: SUBNET UP")
    stage.says(1, MARKER)
    step.run(stage.system, stage.facts(mode, gpus=0 if mode.is_service_vm else 8))
    found = items(stage.system.text("/run/fabricmanager.cfg"))
    assert (found["FABRIC_MODE"], found["PARTITION_RAIL_POLICY"], found["FABRIC_MODE_RESTART"]) == (fabric, rail, "0")


@pytest.mark.parametrize(("text", "after"), [
    pytest.param("A=1", "A=2\n", id="no-newline-at-end"),
    pytest.param("A=1\n\n", "A=2\n\n", id="empty-lines-stay"),
    pytest.param("  A=1\nB=1\nA=3\n", "A=2\nB=1\nA=2\n", id="every-such-line"),
    pytest.param("AB=1\n#A=1\n", "AB=1\n#A=1\nA=2\n", id="longer-key-and-comment"),
    pytest.param("A =1\n", "A =1\nA=2\n", id="blank-before-the-sign"),
    pytest.param("", "A=2\n", id="empty"),
])
def test_editing(text: str, after: str) -> None:
    assert edit(text, {"A": "2"}) == after


@given(st.text(alphabet="AB=# 1\n", max_size=60))
def test_editing_sets_the_item_keeps_the_rest_and_rests(text: str) -> None:
    once = edit(text, {"A": "new"})
    assert items(once)["A"] == "new"
    assert edit(once, {"A": "new"}) == once
    assert once.endswith("\n")
    kept = [line for line in text.split("\n") if line and not line.strip().startswith("A=")]
    assert [line for line in once.split("\n") if line and line != "A=new"] == kept


def test_paths_move_below_the_extension_where_its_files_are(stage: Stage) -> None:
    stage.program(EXT + MANAGER)
    stage.system.put(EXT + CFG, STOCK + "FABRIC_NODE_CONFIG_FILE=/usr/share/nvidia/nvswitch/fabric_node\nX=/etc/hostname\n")
    stage.system.put(f"{EXT}/usr/share/nvidia/nvswitch/fabric_node")
    stage.says(1, MARKER)
    facts = step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8, gpu_root=EXT))
    found = items(stage.system.text("/run/fabricmanager.cfg"))
    assert found["TOPOLOGY_FILE_PATH"] == f"{EXT}/usr/share/nvidia/nvswitch"
    assert found["FABRIC_NODE_CONFIG_FILE"] == f"{EXT}/usr/share/nvidia/nvswitch/fabric_node"
    assert found["X"] == "/etc/hostname"
    assert stage.commands == [f"{EXT}{MANAGER} -c /run/fabricmanager.cfg"]
    assert facts.services[0].service.name == "nv-fabricmanager"


def test_a_path_that_was_rewritten_at_build_time_stays(stage: Stage) -> None:
    stage.program(EXT + MANAGER)
    stage.system.put(EXT + CFG, f"TOPOLOGY_FILE_PATH={EXT}/usr/share/nvidia/nvswitch\n")
    stage.says(1, MARKER)
    step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8, gpu_root=EXT))
    assert items(stage.system.text("/run/fabricmanager.cfg"))["TOPOLOGY_FILE_PATH"] == f"{EXT}/usr/share/nvidia/nvswitch"


def test_every_path_that_leads_nowhere_is_named_at_once(stage: Stage) -> None:
    stage.system.put(CFG, "TOPOLOGY_FILE_PATH=/nowhere\nDATABASE_PATH=/gone\nPID_FILE_PATH=/absent/fm.pid\nNAME=word\n")
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert caught.value.code == "E_FABRIC_CONFIG"
    assert caught.value.what == (f"{CFG}: TOPOLOGY_FILE_PATH=/nowhere does not exist; DATABASE_PATH=/gone does not exist; "
                                 "PID_FILE_PATH=/absent/fm.pid: there is no /absent to write to")
    assert stage.commands == []


def test_an_empty_topology_item_means_the_usual_place(stage: Stage) -> None:
    stage.system.put(CFG, "TOPOLOGY_FILE_PATH=\n")
    stage.says(1, MARKER)
    step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert items(stage.system.text("/run/fabricmanager.cfg"))["TOPOLOGY_FILE_PATH"] == "/usr/share/nvidia/nvswitch"


def test_without_a_stock_file_there_is_no_fabric(stage: Stage) -> None:
    os.unlink(stage.system.real_path(CFG))
    with pytest.raises(NvrcError, match=r"cannot read /usr/share/nvidia/nvswitch/fabricmanager\.cfg: No such file") as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert caught.value.code == "E_FABRIC_CONFIG"


def test_a_full_run_is_named(stage: Stage) -> None:
    stage.system.fail["mkdir /run/nvidia-fabricmanager"] = OSError(28, "No space left on device")
    with pytest.raises(NvrcError, match=r"cannot write /run/fabricmanager\.cfg: No space left on device") as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert caught.value.code == "E_RUN_FULL"


# Readiness


def test_ready_is_the_marker_after_the_start_from_root(stage: Stage) -> None:
    stage.journal._hear(0, 6, MARKER)  # before its start: somebody else's
    stage.says(1, MARKER, uid=1000)
    stage.kernel_says(2, "nvidia-nvswitch0: something")
    stage.says(30, MARKER)
    facts = step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert stage.system.clock == 130
    (manager,) = facts.services
    assert (manager.pid, manager.started_pid, manager.since_s) == (FIRST_PID, FIRST_PID, 100)
    assert step.tell(facts) == "nv-fabricmanager"


def test_a_kill_is_explained_by_who_kills_before_the_agent_runs(stage: Stage) -> None:
    stage.ends(2, int(signal.SIGKILL))
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert "was killed by SIGKILL" in caught.value.what
    assert caught.value.hint == launch.KILLED
    assert "give the VM more memory" in caught.value.hint


def test_what_the_lines_explain_is_better_than_the_signal_alone(stage: Stage) -> None:
    stage.says(1, "fabric manager config file item: LOG_LEVEL has an invalid value")
    stage.ends(2, int(signal.SIGKILL))
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert "stock fabricmanager.cfg" in caught.value.hint


@pytest.mark.parametrize(("status", "how"), [
    (0, "exited with status 0"), (exited(1), "exited with status 1"), (int(signal.SIGSEGV), "was killed by SIGSEGV")])
def test_an_end_before_the_marker_is_a_failure_whatever_the_status(stage: Stage, status: int, how: str) -> None:
    stage.ends(2, status)
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert caught.value.code == "E_FABRIC_START"
    assert caught.value.what == f"nv-fabricmanager {how} 2.3 s after its start, before it was ready; it printed nothing"


def test_last_words_that_come_after_the_end_explain_it(stage: Stage) -> None:
    stage.ends(2, 0)
    stage.says(2.1, "nv-fabricmanager: fabric manager config file item: LOG_FILE_NAME has an invalid value")
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8))
    assert caught.value.code == "E_FABRIC_CONFIG"
    assert caught.value.what.endswith("its last message: fabric manager config file item: LOG_FILE_NAME has an invalid value")


@pytest.mark.parametrize(("cmdline", "limit_s"), [("", 380), ("nvrc.timeout.fabric=20 nvrc.timeout.per_gpu=1", 28)])
def test_a_fabric_manager_that_never_gets_ready_runs_out_of_time(stage: Stage, cmdline: str, limit_s: int) -> None:
    stage.says(3, "nv-fabricmanager[52]: request to query NVSwitch device information: WARNING [NV_WARN_NOTHING_TO_DO]")
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL4, gpus=8, cmdline=cmdline))
    assert caught.value.code == "E_FABRIC_STALL"
    assert caught.value.what == (f"nv-fabricmanager was not ready {limit_s}.0 s after its start; its last message: request to "
                                 "query NVSwitch device information: WARNING [NV_WARN_NOTHING_TO_DO]")
    assert caught.value.hint.startswith("no NVSwitch is visible")
    assert step.deadline_s(stage.facts(Mode.GPU_NVL4, gpus=8, cmdline=cmdline)) > limit_s


# Subnet manager


def test_nvlink_5_starts_the_subnet_manager_first_on_the_right_port(stage: Stage) -> None:
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", gid="fe80:0:0:0:1:1:1:1\n")  # the pod's own adapter
    put_port(stage, "mlx5_2", management(1).bdf)
    put_port(stage, "mlx5_10", management(0).bdf, gid="fe80:0:0:0:2:2:2:2\n")
    stage.says(5, "nvlsm: SUBNET UP")
    stage.says(20, MARKER)
    facts = step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8))
    assert stage.commands == [f"/sbin/nvlsm -F /usr/share/nvidia/nvlsm/nvlsm.conf -g {GUID} -f stdout",
                              f"{MANAGER} -c /run/fabricmanager.cfg -g {GUID}"]
    assert [running.service.name for running in facts.services] == ["nvlsm", "nv-fabricmanager"]
    assert facts.services[1].since_s == 105
    assert step.tell(facts) == "nvlsm, nv-fabricmanager"


def test_a_subnet_manager_that_is_up_is_known_when_the_fabric_manager_fails(stage: Stage) -> None:
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", management(0).bdf)
    stage.says(5, "nvlsm: SUBNET UP")
    stage.ends(6, exited(1), pid=FIRST_PID + 1)
    with pytest.raises(FailedWithFacts) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8))
    assert caught.value.code == "E_FABRIC_START"
    assert [running.service.name for running in caught.value.facts.services] == ["nvlsm"]


def test_the_subnet_managers_socket_is_as_good_as_its_word(stage: Stage) -> None:
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", management(0).bdf)
    stage.system.later(1, lambda: stage.system.put("/run/nvrc/nvidia-fabricmanager/fm_sm_ipc.socket"))
    stage.says(2, "nvlsm: Using default GUID")
    stage.says(9, MARKER)
    assert step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8)).services[1].since_s == 102


def test_a_silent_subnet_manager_is_good_if_its_socket_is_there_in_the_end(stage: Stage) -> None:
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", management(0).bdf)
    stage.system.later(1, lambda: stage.system.put("/run/nvrc/nvidia-fabricmanager/fm_sm_ipc.socket"))
    stage.says(70, MARKER)
    assert step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8)).services[1].since_s == 160


@pytest.mark.parametrize(("happens", "what"), [
    pytest.param(lambda stage: stage.ends(1, exited(1)), "nvlsm exited with status 1", id="ends"),
    pytest.param(lambda stage: None, "nvlsm was not ready 60.0 s after its start", id="silent"),
    pytest.param(lambda stage: stage.system.fail.update({"mkdir /var/run/nvidia-fabricmanager": OSError(30, "Read-only file system")}),
                 "cannot create /var/run/nvidia-fabricmanager: Read-only file system", id="read-only"),
])
def test_without_a_subnet_manager_the_fabric_manager_is_not_started(stage: Stage, happens, what: str) -> None:  # type: ignore[no-untyped-def]
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", management(0).bdf)
    happens(stage)
    with pytest.raises(NvrcError, match=what) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8))
    assert caught.value.code == "E_NVLSM"
    assert len(stage.commands) <= 1


@pytest.mark.parametrize(("port", "what"), [
    pytest.param({"mask": "0x00000400\n"}, "mlx5_0 at 0000:60:00.0 has its subnet manager disabled", id="disabled"),
    pytest.param({"mask": "a651ec48"}, "has its subnet manager disabled", id="disabled-without-0x"),
    pytest.param({"mask": ""}, "does not tell its capabilities: No such file", id="unreadable"),
    pytest.param({"mask": "full\n"}, "cap_mask reads 'full', no mask", id="garbage"),
    pytest.param({"state": "1: DOWN\n"}, "mlx5_0 at 0000:60:00.0 is in state 1: DOWN", id="down"),
    pytest.param({"gid": ""}, "has no GID: No such file", id="no-gid"),
    pytest.param({"gid": "fe80::1\n"}, "has an odd GID 'fe80::1'", id="short-gid"),
    pytest.param({"gid": "0:0:0:0:0:0:0:xyz"}, "has an odd GID", id="no-hex"),
])
def test_ports_that_cannot_run_a_subnet_manager(stage: Stage, port: dict[str, str], what: str) -> None:
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", management(0).bdf, **port)
    with pytest.raises(NvrcError, match=what) as caught:
        step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8))
    assert caught.value.code == "E_NVLSM"


@pytest.mark.parametrize("port", [{"mask": "0x00000200\n"}, {"state": ""}, {"mask": "2651a848"}])
def test_ports_that_can(stage: Stage, port: dict[str, str]) -> None:
    stage.program("/sbin/nvlsm")
    put_port(stage, "mlx5_0", management(0).bdf, **port)
    stage.says(1, "nvlsm: SUBNET UP")
    stage.says(2, MARKER)
    step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8))
    assert GUID in stage.commands[0]


@pytest.mark.parametrize(("devices", "what"), [
    ((), "/sys/class/infiniband: No such file or directory"),
    (("mlx5_0",), "no port for the NVLink subnet manager: mlx5_0 is an ordinary adapter"),
])
def test_no_device_of_a_management_function(stage: Stage, devices: tuple[str, ...], what: str) -> None:
    for device in devices:
        put_port(stage, device)
    with pytest.raises(NvrcError, match=what):
        step.run(stage.system, stage.facts(Mode.GPU_NVL5, gpus=8))


def test_an_empty_class_is_told_as_well(stage: Stage) -> None:
    os.makedirs(stage.system.real_path("/sys/class/infiniband"))
    with pytest.raises(NvrcError, match="no InfiniBand device"):
        step.run(stage.system, stage.facts(Mode.SERVICE_NVL5, gpus=0))


class AnySysfs:
    """Every attribute of one port, of one device at a management function, is whatever a test says."""

    def __init__(self, names: list[str], attributes: dict[str, bytes]) -> None:
        self.names, self.attributes = tuple(names), attributes

    def list_dir(self, path: str) -> tuple[str, ...]:
        if not self.names:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.names

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        name = path.partition("/ports/1/")[2]
        if name not in self.attributes:
            raise OSError(5, "Input/output error", path)
        return self.attributes[name][:limit]


ATTRIBUTES = st.dictionaries(
    st.sampled_from(["cap_mask", "state", "gids/0"]),
    st.binary(max_size=100) | st.sampled_from([b"0x2651e848\n", b"4: ACTIVE\n", b"fe80:0:0:0:1:2:3:4\n", b"0x\n", b"\xff"]))


@given(st.lists(st.text(min_size=1, max_size=255), max_size=3, unique=True), ATTRIBUTES)
def test_any_sysfs_gives_a_guid_or_an_error_with_a_code(names: list[str], attributes: dict[str, bytes]) -> None:
    try:
        guid = find_port(AnySysfs(names, attributes), (management(0).bdf,))
    except NvrcError as err:
        assert err.code == "E_NVLSM"
    else:
        assert re.fullmatch("0x[0-9a-fA-F]{16}", guid)
        assert attributes.get("state", b"4: ACTIVE").strip() == b"4: ACTIVE"
        assert not int(attributes["cap_mask"], 16) >> 10 & 1


def test_devices_sort_by_their_number() -> None:
    names = ["mlx5_10", "mlx5_2", "ibp3s0", "mlx5_0", "mlx4_1"]
    assert sorted(names, key=natural) == ["ibp3s0", "mlx4_1", "mlx5_0", "mlx5_2", "mlx5_10"]
