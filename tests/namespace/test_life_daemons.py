# SPDX-License-Identifier: Apache-2.0
"""Daemons under the real PID 1, in namespaces: they fork away, are reaped, come back, and stop after the agent."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fakes.system import FakeSystem, bare_guest
from namespace.guest import Guest, boot

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
PROGRAMS = {"agent": ("/usr/bin/kata-agent",),
            "daemon": ("/bin/nvidia-persistenced", "/bin/nv-hostengine", "/bin/dcgm-exporter")}
BDFS = ("0000:40:00.0", "0000:41:00.0")


class Run(Protocol):
    def __call__(self, behaviour: str, cmdline: str = "", daemons: str = "") -> Guest: ...


@pytest.fixture
def root(tmp_path: Path, compiled: Callable[[str], bytes]) -> FakeSystem:
    system = bare_guest(str(tmp_path))
    system.put("/proc/self/oom_score_adj")
    for name, paths in PROGRAMS.items():
        for path in paths:
            system.put(path, compiled(name), 0o755)
    for bdf in BDFS:
        for attribute, text in (("vendor", "0x10de\n"), ("device", "0x2330\n"), ("class", "0x030200\n")):
            system.put(f"/sys/bus/pci/devices/{bdf}/{attribute}", text)
    system.put("/etc/dcgm-exporter/default-counters.csv")
    os.makedirs(system.real_path("/var"))
    os.symlink("../run", system.real_path("/var/run"))
    return system


@pytest.fixture
def run(root: FakeSystem) -> Iterator[Run]:
    guests: list[Guest] = []

    def start(behaviour: str, cmdline: str = "", daemons: str = "") -> Guest:
        root.put("/etc/behaviour", behaviour)
        root.put("/etc/daemons", daemons)
        root.put("/proc/cmdline", f"quiet nvrc.timeout.host_end=0 nvrc.timeout.farewell=1 {cmdline}\n")
        guests.append(boot(root.root, table="gpu_daemons"))
        return guests[-1]

    yield start
    for guest in guests:
        guest.end()


def status(root: FakeSystem) -> dict[str, object]:
    return dict(json.loads(root.read("/run/nvrc/status.json")))


def services(root: FakeSystem) -> dict[str, str]:
    found = json.loads(root.read("/run/nvrc/status.json"))["services"]
    return {service["name"]: service["state"] for service in found}


def test_gpus_attach_and_daemons_stop_after_the_agent(run: Run, root: FakeSystem) -> None:
    guest = run("end-on-term hold", "nvrc.dcgm=on")
    ready = guest.read_until("nvrc: READY in ")
    assert guest.found("nvrc: step persistenced ok")[0].endswith("2 of 2 GPUs attached, slowest 0.0 s")
    assert ready.split()[4:6] == ["mode=gpu", "gpus=2"]
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("END code=OK")
    assert services(root) == {"agent": "stopped", "nvidia-persistenced": "stopped", "nv-hostengine": "stopped",
                              "dcgm-exporter": "stopped"}
    assert guest.found("guest: zombies=0 ")
    stops = [line for line in root.text("/run/syslog.log").splitlines() if "stopped by signal 15" in line]
    assert len(stops) == 3
    assert [gpu["state"] for gpu in json.loads(root.read("/run/nvrc/boot.json"))["gpus"]] == ["attached", "attached"]


def test_a_daemon_that_names_the_agent_as_itself_keeps_no_vm_alive(run: Run, root: FakeSystem) -> None:
    """It may write any pid into its file, and PID 1 reads that when a process has ended that it does not know."""
    guest = run("end-on-term hold", "nvrc.dcgm=on", "nameless-engine")
    agent = guest.read_until("nvrc: READY in ").rpartition("agent=")[2]
    root.put("/run/nv-hostengine/nv-hostengine.pid", agent)
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("END code=OK")
    assert services(root)["agent"] == "stopped"


def test_a_daemon_that_talks_without_end_costs_its_boot_and_little_memory(run: Run) -> None:
    guest = run("end-on-term hold", "nvrc.timeout.persistenced=5 nvrc.timeout.per_gpu=0", "persistenced-talks")
    guest.read_until("nvrc: FATAL code=E_PERSISTENCED_STALL step=persistenced")
    guest.finish()
    (end,) = guest.found("guest: zombies=")
    assert int(end.rpartition("peak_kib=")[2]) < 64 << 10, end


@pytest.mark.usefixtures("alone")
def test_a_daemon_that_leaves_orphans_without_end_costs_its_boot_and_no_more(run: Run) -> None:
    guest = run("end-on-term hold", "nvrc.timeout.persistenced=5 nvrc.timeout.per_gpu=0", "persistenced-breeds")
    guest.read_until("nvrc: FATAL code=E_PERSISTENCED_STALL step=persistenced")
    guest.finish()
    (end,) = guest.found("guest: zombies=")
    assert int(end.rpartition("peak_kib=")[2]) < 64 << 10, end


def test_success_with_a_failed_gpu_ends_the_boot(run: Run) -> None:
    guest = run("hold", daemons=f"fails={BDFS[1]}")
    guest.finish()
    (line,) = guest.found("FATAL")
    assert 'code=E_GPU_ATTACH step=persistenced what="1 of 2 GPUs attached' in line
    assert f"GPU {BDFS[1]} failed to attach" in line
    assert not guest.found("READY")


def test_fewer_gpus_than_there_are_degrade_where_that_is_wanted(run: Run, root: FakeSystem) -> None:
    guest = run("power-off", "nvrc.gpus=min:1", f"fails={BDFS[1]}")
    guest.finish()
    assert guest.found(f"nvrc: warn E_GPU_ATTACH GPU {BDFS[1]} failed to attach")
    assert guest.found("READY")[0].split()[5] == "gpus=1"
    assert json.loads(root.read("/run/nvrc/boot.json"))["verdict"] == "degraded"


def test_a_helper_that_ends_is_started_again(run: Run, root: FakeSystem) -> None:
    guest = run("end-on-term hold", "nvrc.dcgm=on", "exporter-ends")
    guest.read_until("dcgm-exporter was restarted")
    assert guest.found("it is restarted in 1 s")
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("END code=OK")


def test_persistenced_that_dies_is_told_and_stays_away(run: Run, root: FakeSystem) -> None:
    guest = run("end-on-term hold")
    guest.read_until("nvrc: READY in ")
    os.kill(guest.daemon("nvidia-persistenced"), signal.SIGKILL)
    guest.read_until("nvrc: warn E_SERVICE_LOST nvidia-persistenced was killed by SIGKILL")
    guest.signal(signal.SIGTERM)
    guest.finish()
    found = status(root)
    assert found["verdict"] == "degraded"
    assert services(root)["nvidia-persistenced"] == "failed"
    assert found["orphans_reaped"] == 0


def test_strict_ends_the_vm_with_its_critical_daemon(run: Run) -> None:
    guest = run("hold", "nvrc.strict=on")
    guest.read_until("nvrc: READY in ")
    os.kill(guest.daemon("nvidia-persistenced"), signal.SIGKILL)
    guest.finish()
    assert guest.found("FATAL code=E_SERVICE_LOST step=supervise")


def test_a_critical_daemon_that_dies_while_the_boot_goes_on_ends_it(run: Run) -> None:
    guest = run("hold", "nvrc.dcgm=on", "slow-engine")
    guest.read_until("nvrc: step persistenced ok")
    os.kill(guest.daemon("nvidia-persistenced"), signal.SIGKILL)
    guest.finish()
    (line,) = guest.found("FATAL")
    assert 'code=E_SERVICE_LOST step=persistenced what="nvidia-persistenced was killed by SIGKILL during the boot"' in line
    assert "reset the GPUs before the next start" in line
    assert not guest.found("READY")


def test_a_boot_that_fails_late_stops_the_daemons_it_started(run: Run, root: FakeSystem) -> None:
    root.put("/usr/bin/kata-agent", "no program", 0o755)
    guest = run("hold", "nvrc.dcgm=on")
    guest.finish()
    assert guest.found("FATAL code=E_AGENT_EXEC step=agent")
    stops = [line for line in root.text("/run/syslog.log").splitlines() if "stopped by signal 15" in line]
    assert len(stops) == 3
    assert guest.found("guest: zombies=0 ")
