# SPDX-License-Identifier: Apache-2.0
"""Whole machines: eight GPUs with switches on two NUMA nodes, registers for the real driver, and a clean hand-over."""

from __future__ import annotations

import re

import pytest

from nvrc_lab.qemu.machine import Machine
from nvrc_lab.run.probing import MOUNTS, probe, told

pytestmark = pytest.mark.qemu

AGENT = "/usr/bin/kata-agent"
SYSFS = "/sys/bus/pci/devices"
TWO_NODES = Machine(memory_mib=1024, cpus=2, extra=(
    "-object", "memory-backend-ram,id=m0,size=512M", "-object", "memory-backend-ram,id=m1,size=512M",
    "-numa", "node,nodeid=0,cpus=0,memdev=m0", "-numa", "node,nodeid=1,cpus=1,memdev=m1"))


def b200(index: int) -> str:
    """The recorded attach times of eight confidential B200, in twentieths; four on each NUMA node."""
    times = (160, 160, 150, 160, 155, 160, 165, 170)
    return (f"0000:{0x40 + index:02x}:00.0/10de:2901/030200/cc=1/attach_ms={times[index]}/numa={index // 4}"
            f"/uuid={index + 1:032x}/model=NVIDIA%20B200")


def test_eight_gpus_and_four_switches_on_two_nodes_attach_in_the_time_of_all() -> None:
    functions = ",".join([*(b200(index) for index in range(8)),
                          *(f"0000:50:0{index}.0/10de:22a3/068000" for index in range(4)),
                          *(f"0000:60:0{index}.0/15b3:1021/020700/vpd=SW_MNG" for index in range(4))])
    lines = probe(functions, f"""{MOUNTS}syslog
mount tmpfs /var/run
insmod /lab/nvidia.ko
ls /proc/driver/nvidia/gpus
ls /proc/driver/nvidia-nvswitch/devices
cat {SYSFS}/0000:43:00.0/numa_node
cat {SYSFS}/0000:44:00.0/numa_node
run /usr/bin/nvidia-persistenced --verbose
cat /proc/nvidia-lab
""", programs=["nvidia"], machine=TWO_NODES)
    assert len(told(lines, "ls /proc/driver/nvidia/gpus")[0].split()) == 8
    assert len(told(lines, "ls /proc/driver/nvidia-nvswitch/devices")[0].split()) == 4
    assert told(lines, f"cat {SYSFS}/0000:43:00.0/numa_node") == ["0"]
    assert told(lines, f"cat {SYSFS}/0000:44:00.0/numa_node") == ["1"]
    status, _, ms = told(lines, "run /usr/bin/nvidia-persistenced")[0].partition(" ms=")
    assert status == "exit=0"
    assert int(ms) >= 1280
    assert sum("persistence mode enabled." in line for line in lines) == 8
    assert all("attaches=1 failures=0" in row for row in told(lines, "cat /proc/nvidia-lab"))


def test_the_fifth_nvlink_generation_from_port_to_persistenced() -> None:
    """Four bridges, one of which may not run a subnet manager; persistenced before and after the fabric is up."""
    bridges = [f"0000:60:0{index}.0/15b3:1021/020700/vpd=SW_MNG/guid=b83fd20300a1c0{index:02x}" for index in range(4)]
    bridges[0] += "/port_mask=0xa651ec48"
    bridges[3] += "/port_state=1"
    functions = ",".join([*(b200(index) for index in range(8)), *bridges])
    config = "LOG_USE_SYSLOG=1\nDAEMONIZE=0\nTOPOLOGY_FILE_PATH=/topology\nFM_CMD_UNIX_SOCKET_PATH=/var/run/fm.socket\n"
    port = "/sys/class/infiniband"
    lines = probe(functions, f"""{MOUNTS}syslog
mount tmpfs /var/run
loopback
insmod /lab/nvidia.ko
insmod /lab/ib_core.ko
insmod /lab/ib_uverbs.ko
insmod /lab/ib_umad.ko
insmod /lab/mlx5_core.ko
insmod /lab/mlx5_ib.ko
ls {port}
ls /dev/infiniband
link {port}/mlx5_1/device
cat {port}/mlx5_0/ports/1/cap_mask
cat {port}/mlx5_1/ports/1/cap_mask
cat {port}/mlx5_1/ports/1/state
cat {port}/mlx5_3/ports/1/state
cat {port}/mlx5_1/ports/1/gids/0
write /lab/faults nvidia-persistenced.fabric_wait_ms=1
run /usr/bin/nvidia-persistenced --verbose --uvm-persistence-mode
kill nvidia-persistenced 15
spawn /usr/sbin/nvlsm -F /nvlsm.conf -g 0xb83fd20300a1c001 -f stdout
spawn /usr/bin/nv-fabricmanager -c /fm.cfg -g 0xb83fd20300a1c001
wait /var/run/fm.socket 5000
write {SYSFS}/0000:40:00.0/reset 1
run /usr/bin/nvidia-persistenced --verbose --uvm-persistence-mode
rmmod mlx5_ib
ls {port}
kmsg BUG
""", programs=["nvidia"], has_rdma=True, texts={"/fm.cfg": config, "/nvlsm.conf": "", "/topology/x": "", "/lab/faults": ""})
    assert told(lines, f"ls {port}") == ["mlx5_0 mlx5_1 mlx5_2 mlx5_3", ""]
    nodes = told(lines, "ls /dev/infiniband")[0].split()
    assert nodes == [f"{kind}{index}" for kind in ("issm", "umad", "uverbs") for index in range(4)]
    assert told(lines, f"link {port}/mlx5_1/device")[0].endswith("0000:60:01.0")
    assert [told(lines, f"cat {port}/mlx5_{index}/ports/1/cap_mask") for index in (0, 1)] == [["0xa651ec48"], ["0xa651e848"]]
    assert [told(lines, f"cat {port}/mlx5_{index}/ports/1/state") for index in (1, 3)] == [["4: ACTIVE"], ["1: DOWN"]]
    assert told(lines, f"cat {port}/mlx5_1/ports/1/gids/0") == ["fe80:0000:0000:0000:b83f:d203:00a1:c001"]
    assert "NVLSM bound to port GUID 0xb83fd20300a1c001" in lines
    assert sum("Could not Enable UVM Persistence mode becausethe NVLink fabric is not ready" in line for line in lines) == 8
    assert sum("Enabled UVM Persistence mode." in line for line in lines) == 1
    assert not told(lines, "kmsg")


def test_a_function_without_reset_and_one_on_a_node_that_the_machine_lacks() -> None:
    lines = probe(f"{b200(0)}/flr=0,{b200(7)}", f"{MOUNTS}link {SYSFS}/0000:40:00.0/reset\n"
                  f"cat {SYSFS}/0000:47:00.0/numa_node\nkmsg NUMA node\n")
    assert told(lines, f"link {SYSFS}/0000:40:00.0/reset") == ["error ENOENT"]
    assert told(lines, f"cat {SYSFS}/0000:47:00.0/numa_node") == ["-1"]
    assert any("NUMA node 1 is not online" in line for line in told(lines, "kmsg"))


def test_registers_of_the_real_drivers_probe_lie_behind_bar_0() -> None:
    functions = "0000:40:00.0/10de:2330/030200,0000:40:01.0/10de:2901/030200/boot42=1b0a1000"
    lines = probe(functions, f"""{MOUNTS}write {SYSFS}/0000:40:00.0/enable 1
peek {SYSFS}/0000:40:00.0/resource0 0x0
peek {SYSFS}/0000:40:00.0/resource0 0xa00
peek {SYSFS}/0000:40:01.0/resource0 0xa00
cat {SYSFS}/0000:40:00.0/resource
""", texts={"/lab/modules": f"/lab/lab_pci.ko mmio=0x10000000 fn={functions}\n"}, cmdline="memmap=32M$0x10000000")
    assert told(lines, f"peek {SYSFS}/0000:40:00.0/resource0") == ["0x0 180000a1", "0xa00 180a1000"]
    assert told(lines, f"peek {SYSFS}/0000:40:01.0/resource0") == ["0xa00 1b0a1000"]
    assert told(lines, f"cat {SYSFS}/0000:40:00.0/resource")[0].startswith("0x0000000010000000 0x0000000010ffffff")


def test_registers_outside_reserved_memory_end_the_boot_with_the_remedy() -> None:
    functions = "0000:40:00.0/10de:2330/030200"
    lines = probe(functions, "", texts={"/lab/modules": f"/lab/lab_pci.ko mmio=0x10000000 fn={functions}\n"})
    assert "is not reserved; add memmap=16M$0x10000000 to the kernel command line" in "\n".join(lines)
    assert "labinit: FATAL load /lab/lab_pci.ko: Invalid argument" in lines


@pytest.fixture(scope="module")
def handed_over() -> list[str]:
    """The stand-in agent as the init, with events beside it."""
    return probe(b200(0), "", programs=["agent"], cmdline="cgroup_no_v1=all lab.agent=orphans:200,flood:3,poweroff", texts={
        "/lab/target": f"{AGENT}\n", "/lab/script": "", "/etc/hostname": "sandbox\n",
        "/lab/events": "wait /dev/pts 5000\nsay events run\n"})


def test_the_init_finds_the_machine_as_the_kernel_left_it(handed_over: list[str]) -> None:
    given = handed_over[:next(at for at, line in enumerate(handed_over) if line.startswith("agent: duty"))]
    assert "agent: pid=1 ppid=0 pgid=0 sid=0 uid=0 gid=0" in given
    assert f"agent: argv 0 {AGENT}" in given
    assert "agent: mount unknown: no /proc" in given
    assert sorted(line for line in given if line.startswith("agent: env ")) == ["agent: env HOME=/", "agent: env TERM=linux"]


@pytest.mark.parametrize("duty", ["mount /proc", "mount /sys", "mount /dev", "mount /dev/shm", "mount /dev/pts",
                                  "mount /run", "mount /sys/fs/cgroup", "ptmx", "setsid", "terminal"])
def test_the_agent_does_what_kata_agent_does_first(handed_over: list[str], duty: str) -> None:
    assert f"agent: duty {duty} done" in handed_over


def test_the_agent_reports_what_it_reached(handed_over: list[str]) -> None:
    assert "agent: duty hostname done sandbox" in handed_over
    assert "agent: cgroup2 mounted=yes writable=yes" in handed_over
    assert "agent: shm mounted=yes" in handed_over
    assert "agent: pts mounted=yes" in handed_over


def test_the_agents_loads_and_end(handed_over: list[str]) -> None:
    assert any(re.fullmatch(r"agent: orphans started=200 zombies=0 ms=\d+", line) for line in handed_over)
    assert "agent: flood cannot reach /dev/log: No such file or directory" in handed_over
    assert "agent: acts orphans:200,flood:3,poweroff" in handed_over
    assert any("reboot: Power down" in line for line in handed_over)


def test_events_run_beside_the_init(handed_over: list[str]) -> None:
    assert "probe: say events run" in handed_over


def test_a_target_that_is_missing_ends_the_boot_with_its_name() -> None:
    lines = probe(b200(0), "", texts={"/lab/target": "/no/such/init\n"})
    assert "labinit: FATAL start /no/such/init: No such file or directory" in lines
