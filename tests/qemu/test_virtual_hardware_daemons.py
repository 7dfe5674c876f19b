# SPDX-License-Identifier: Apache-2.0
"""The stand-ins for NVIDIA's programs on the emulated driver: exit status, syslog lines, sockets, and their lies."""

from __future__ import annotations

import pytest

from nvrc_lab.run.probing import MOUNTS, probe, told

pytestmark = pytest.mark.qemu

PERSISTENCED = "/usr/bin/nvidia-persistenced"
RUN = "/var/run/nvidia-persistenced"
START = f"{MOUNTS}syslog\nmount tmpfs /var/run\n"
DRIVER = "insmod /lab/nvidia.ko\n"


def gpus(*keys: str) -> str:
    """One function per argument: its further keys."""
    rows = [f"0000:{0x40 + index:02x}:00.0/10de:2330/030200/uuid={index + 1:032x}/model=NVIDIA%20H100/{key}".rstrip("/")
            for index, key in enumerate(keys)]
    return ",".join(rows)


def run(functions: str, script: str, faults: str = "", texts: dict[str, str] | None = None) -> list[str]:
    return probe(functions, START + script, programs=["nvidia"],
                 texts={"/lab/faults": faults, "/lab/started": "", **(texts or {})})


def exits(lines: list[str], path: str) -> list[int]:
    """Exit statuses of every run of a program, in order."""
    return [int(line.removeprefix("exit=").split()[0]) for line in told(lines, f"run {path}")]


def logged(lines: list[str], tag: str) -> list[str]:
    """Priority and text of every datagram that carries this tag."""
    return [f"{head}>{text.partition(': ')[2]}" for head, _, text in
            (line.partition(">") for line in told(lines, "syslog")) if text.startswith(tag)]


@pytest.fixture(scope="module")
def life() -> list[str]:
    """Three GPUs, the second of which cannot be opened; then a second start, then SIGTERM."""
    return run(gpus("attach_ms=100", "faults=attach", "attach_ms=100"), f"""{DRIVER}
run {PERSISTENCED} --verbose --uvm-persistence-mode
ls {RUN}
ls /dev
cat /proc/nvidia-lab
run {PERSISTENCED}
kill nvidia-persistenced 15
sleep 200
ls {RUN}
cat /proc/nvidia-lab
cat /lab/started
""")


def test_persistenced_says_success_although_a_gpu_failed(life: list[str]) -> None:
    assert exits(life, PERSISTENCED)[0] == 0
    assert told(life, f"ls {RUN}")[0] == "nvidia-persistenced.pid socket"


def test_only_the_lines_per_device_tell_the_truth(life: list[str]) -> None:
    lines = logged(life, "nvidia-persistenced")
    at = lines.index("<31>device 0000:40:00.0 - registered")
    assert lines[at:at + 9] == [
        "<31>device 0000:40:00.0 - registered",
        "<30>device 0000:40:00.0 - Enabled UVM Persistence mode.",
        "<29>device 0000:40:00.0 - persistence mode enabled.",
        "<31>device 0000:41:00.0 - registered",
        "<27>device 0000:41:00.0 - failed to open.",
        "<31>device 0000:42:00.0 - registered",
        "<30>device 0000:42:00.0 - Enabled UVM Persistence mode.",
        "<29>device 0000:42:00.0 - persistence mode enabled.",
        "<30>Local RPC services initialized",
    ]


def test_persistenced_makes_the_nodes_and_holds_the_gpus_until_it_ends(life: list[str]) -> None:
    assert {"nvidia0", "nvidia1", "nvidia2", "nvidiactl"} <= set(told(life, "ls /dev")[0].split())
    rows = told(life, "cat /proc/nvidia-lab")
    assert [" users=1 " in row for row in rows] == [True, False, True, False, False, False]
    assert all(row.endswith("first=nvidia-persiste") for row in rows)


def test_a_second_persistenced_fails_and_sigterm_cleans_up(life: list[str]) -> None:
    assert exits(life, PERSISTENCED) == [0, 1]
    assert any(line.startswith("<27>Failed to lock PID file: ") for line in logged(life, "nvidia-persistenced"))
    assert told(life, f"ls {RUN}")[1] == ""


def test_every_start_is_on_record(life: list[str]) -> None:
    starts = [line.split(maxsplit=2)[2] for line in told(life, "cat /lab/started")]
    assert starts == [f"{PERSISTENCED} --verbose --uvm-persistence-mode", PERSISTENCED]


@pytest.fixture(scope="module")
def refusals() -> list[str]:
    """Every way in which persistenced does not come up, one after another on one machine without a driver."""
    return run("0000:41:00.0/15b3:1021/020700", f"""run {PERSISTENCED}
write /lab/faults nvidia-persistenced.no_cfg=1
run {PERSISTENCED}
write /lab/faults nvidia-persistenced.fail=3
run {PERSISTENCED}
write /lab/faults nvidia-persistenced.lie=all is well
run /usr/bin/nvidia-smi -L
run /usr/bin/nvidia-smi
""")


def test_persistenced_without_a_driver_or_library_exits_1(refusals: list[str]) -> None:
    assert exits(refusals, PERSISTENCED) == [1, 1, 1]
    lines = logged(refusals, "nvidia-persistenced")
    assert any(line.startswith("<27>Failed to query NVIDIA devices.") for line in lines)
    assert any(line.startswith("<27>Failed to open libnvidia-cfg.so.1: ") for line in lines)
    assert any("told to fail with status 3" in line for line in lines)


def test_nvidia_smi_without_a_driver_exits_9(refusals: list[str]) -> None:
    assert exits(refusals, "/usr/bin/nvidia-smi") == [9, 9]


@pytest.fixture(scope="module")
def tools() -> list[str]:
    """Two confidential GPUs that persistenced holds; then the tools an init runs after it."""
    smi = "/usr/bin/nvidia-smi"
    return run(gpus("cc=1", "cc=1/minor=5"), f"""{DRIVER}insmod /lab/nvidia_uvm.ko
mount tmpfs /run
run {PERSISTENCED} --verbose
run {smi} -L
run {smi} -lgc 1410
run {smi} -lgc fast
run {smi} conf-compute -grs
run {smi} conf-compute -srs 1
run {smi} conf-compute -grs
run {smi} conf-compute -srs 2
run /usr/bin/nvidia-ctk -d cdi generate --output=/var/run/cdi/nvidia.yaml
cat /var/run/cdi/nvidia.yaml
kill nvidia-persistenced 9
sleep 100
run {smi} -L
run {smi} conf-compute -grs
""")


def test_nvidia_smi_lists_sets_and_refuses(tools: list[str]) -> None:
    assert exits(tools, "/usr/bin/nvidia-smi") == [0, 0, 2, 0, 0, 0, 2, 0, 6]
    assert "GPU 1: NVIDIA H100 (UUID: GPU-00000000-0000-0000-0000-000000000002)" in tools
    assert 'GPU clocks set to "(gpuClkMin 1410, gpuClkMax 1410)" for GPU 00000000:41:00.0' in tools
    states = [line for line in tools if line.startswith("Confidential Compute GPUs Ready state: ")]
    assert [state.rpartition(" ")[2] for state in states] == ["not-ready", "ready"]


def test_a_confidential_gpu_is_gone_once_persistenced_was_killed(tools: list[str]) -> None:
    assert "No devices found." in tools
    assert "No devices were found" in tools


def test_nvidia_ctk_writes_a_document_by_index_and_uuid(tools: list[str]) -> None:
    assert exits(tools, "/usr/bin/nvidia-ctk") == [0]
    text = told(tools, "cat /var/run/cdi/nvidia.yaml")
    assert [line.removeprefix("- name: ") for line in text if line.startswith("- name: ")] == [
        '"0"', '"GPU-00000000-0000-0000-0000-000000000001"', '"1"', '"GPU-00000000-0000-0000-0000-000000000002"', "all"]
    assert text.count("- path: /dev/nvidia5") == 3


CONFIG = """LOG_USE_SYSLOG=1
DAEMONIZE=0
FABRIC_MODE=0
PARTITION_RAIL_POLICY=greedy
TOPOLOGY_FILE_PATH=/topology
FM_CMD_UNIX_SOCKET_PATH=/var/run/fm.socket
"""
SWITCHES = ",".join(f"0000:50:0{index}.0/10de:22a3/068000" for index in range(4))


@pytest.fixture(scope="module")
def fabric() -> list[str]:
    """Eight GPUs and four switches; configurations good and bad; a daemon that dies later."""
    manager = "/usr/bin/nv-fabricmanager"
    bad = CONFIG.replace("FABRIC_MODE=0", "FABRIC_MODE=7")
    lost = CONFIG.replace("/topology", "/nowhere")
    return run(f"{gpus(*[''] * 8)},{SWITCHES}", f"""{DRIVER}mount tmpfs /run
run {manager} -c /absent.cfg
run {manager} -c /bad.cfg
run {manager} -c /lost.cfg
run {manager} -c /good.cfg
loopback
spawn {manager} -c /good.cfg
wait /var/run/fm.socket 3000
sleep 50
kill nv-fabricmanager 15
write /lab/faults nv-fabricmanager.exit_after_ms=50
run {manager} -c /daemon.cfg
run /usr/sbin/nvlsm -F /absent.conf -g 0x1
run /usr/bin/nv-hostengine --service-account nvidia-dcgm --home-dir /tmp
run /usr/bin/dcgm-exporter -k -f /absent.csv
sleep 400
ls /var/run/nvidia-fabricmanager
kill nv-fabricmanager 0
""", texts={"/good.cfg": CONFIG, "/bad.cfg": bad, "/lost.cfg": lost, "/topology/dgxh100": "",
            "/daemon.cfg": CONFIG.replace("DAEMONIZE=0", "DAEMONIZE=1")})


def test_fabric_manager_ends_with_0_on_a_bad_item_and_1_on_a_missing_file(fabric: list[str]) -> None:
    assert exits(fabric, "/usr/bin/nv-fabricmanager")[:3] == [1, 0, 1]
    assert "fabric manager config file item: FABRIC_MODE has an invalid value" in fabric
    assert any(line.startswith("failed to open fabric topology file in /nowhere") for line in fabric)


def test_fabric_manager_needs_the_loopback_address(fabric: list[str]) -> None:
    assert exits(fabric, "/usr/bin/nv-fabricmanager")[3] == 1
    assert "failed to bind to 127.0.0.1:6666: Network is unreachable" in fabric


def test_fabric_manager_comes_up_with_its_marker_and_socket(fabric: list[str]) -> None:
    assert told(fabric, "wait /var/run/fm.socket")[0].startswith("ok")
    assert "<30>FM starting NvLink Inband" in logged(fabric, "nv-fabricmanager")
    assert "nv-fabricmanager 15 hit=1" in told(fabric, "kill")


def test_a_daemonised_fabric_manager_ends_at_once_and_leaves_a_pid_file(fabric: list[str]) -> None:
    assert exits(fabric, "/usr/bin/nv-fabricmanager")[4] == 0
    assert told(fabric, "ls /var/run/nvidia-fabricmanager")[0].split() == ["nv-fabricmanager.pid"]
    assert "nv-fabricmanager 0 hit=0" in told(fabric, "kill")


def test_dcgm_needs_its_account_and_its_counters(fabric: list[str]) -> None:
    assert exits(fabric, "/usr/bin/nv-hostengine") == [1]
    assert exits(fabric, "/usr/bin/dcgm-exporter") == [1]
    assert exits(fabric, "/usr/sbin/nvlsm") == [1]
    assert "Err: failed to find the service account nvidia-dcgm" in fabric
