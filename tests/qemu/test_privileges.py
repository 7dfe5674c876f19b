# SPDX-License-Identifier: Apache-2.0
"""The table of privileges against what the kernel says of each program, in one machine in which all of them run.

On the lab's image, and with NVRC_BUILT_IMAGES=1 on those of fakes/built_images.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fakes.built_images import IMAGES, build
from nvrc.machine.confine import CAPABILITIES, COVERED_OF_PROC
from nvrc.machine.privileges import (
    AGENT,
    EXPORTER,
    FABRIC_MANAGER,
    HOST_ENGINE,
    METRICS,
    PERSISTENCED,
    SUBNET_MANAGER,
    WORKER,
)
from nvrc.machine.rights import MIB, Privileges
from nvrc.vocabulary import paths
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.unpacked_boot import lighten
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Result, open_lab, run_scenario
from nvrc_lab.scenario.faults import BOOT_OVER, WAIT_MS
from nvrc_lab.scenario.scenario import parse_scenario

pytestmark = pytest.mark.qemu

# ldconfig runs before there is a driver, last-words before the machine's end, documents and verifier where there are
# functions of the network and evidence: the namespace tier has those.
DAEMONS = (SUBNET_MANAGER, FABRIC_MANAGER, PERSISTENCED, HOST_ENGINE, EXPORTER, METRICS)
# The agent stays until the hand has looked, which a line of the kernel's log says to it.
# The worker is gone when the agent runs, so it is looked at while it counts GPUs, which takes it a while here.
EVERYTHING = parse_scenario("""
summary: A whole HGX B200 board with every program that PID 1 starts.
machine:
  gpus:
    - {product: B200, count: 8}
  management_nics: 4
  memory_mib: 768
cmdline: nvrc.dcgm=on nvrc.metrics=9401
agent: {does: [poweroff], seconds: 0.1}
faults:
  - {name: nvml-slow, call: nvmlDeviceGetCount, value: "1500"}
expect:
  verdict: ready
  mode: gpu-nvl5
  gpus: 8
  warnings: [lab looked]
""", "privileges", "this test")
HAND = (f"heard {WAIT_MS} nvrc: step persistenced ok", f"rights {WORKER.account.gid}", BOOT_OVER, f"await {METRICS.name} {WAIT_MS}",
        *(f"rights {row.account.gid}" for row in DAEMONS), f"rights {AGENT.name}",
        "write /dev/kmsg <2>nvrc: warn lab looked")


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def result(image: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    places, qemu = checkout(), find_qemu()
    choice = choose_accel(qemu, places.accel)
    scenario, hand = EVERYTHING, HAND
    if METRICS not in rows_of(image):
        scenario = replace(scenario, cmdline=scenario.cmdline.replace(" nvrc.metrics=9401", ""))
        hand = tuple(line for line in hand if METRICS.name not in line)
    files = lighten(build(image, tmp_path_factory.mktemp("built")), (scenario,), choice.accel, places)
    lab = open_lab(places, qemu, files, (scenario,), choice=choice)
    return run_scenario(replace(lab, events=hand), scenario, tmp_path_factory.mktemp("consoles") / "console")


def rows_of(image: str) -> tuple[Privileges, ...]:
    """The confidential image serves no metrics."""
    return tuple(row for row in (WORKER, *DAEMONS) if row is not METRICS or image != "nvidia-confidential")


@pytest.fixture(scope="module")
def told(result: Result) -> Mapping[str, list[dict[str, str]]]:
    """By group or name, what the kernel says of each of its programs."""
    return read_words(result, "rights")


def read_words(result: Result, what: str) -> dict[str, list[dict[str, str]]]:
    rows: dict[str, list[dict[str, str]]] = {}
    for line in result.console.read_text(errors="replace").splitlines():
        _, is_told, text = line.partition(f"probe: {what} ")
        if is_told:
            which, *words = text.split()
            rows.setdefault(which, []).append(dict(word.split("=", 1) for word in words if "=" in word))
    return rows


def limit(number: int | None) -> str:
    return f"{number},{number}"


@pytest.mark.parametrize("row", [WORKER, *DAEMONS], ids=lambda row: row.name)
def test_the_kernel_says_what_the_row_says(image: str, told: Mapping[str, list[dict[str, str]]], row: Privileges) -> None:
    """All its processes; a daemon that forked has none that escaped."""
    if row not in rows_of(image):
        pytest.skip(f"{image} has no such program")
    found = told[str(row.account.gid)]
    assert found and all("pid" in one for one in found), found
    mask = f"{sum(1 << CAPABILITIES[name] for name in row.capabilities):016x}"
    for one in found:
        assert (one["Uid"].split(","), one["Gid"].split(",")) == ([str(row.account.uid)] * 4, [str(row.account.gid)] * 4)
        assert one["Groups"] == str(paths.DEV_LOG_GROUP)
        assert {name: one[name] for name in ("CapPrm", "CapEff", "CapBnd")} == dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), mask)
        assert one["CapAmb"] == one["CapInh"] == (mask if row.account.uid else "0" * 16)
        assert (one["NoNewPrivs"], one["Seccomp"]) == ("1", "2")
        assert (one["core"], one["data"], one["files"]) == ("0,0", limit(row.data_mib * MIB), limit(row.open_files))
        assert row.processes is None or one["processes"] == limit(row.processes)
        assert set(one["own"].strip(",").split(",")) == {"mnt", "ipc", "uts"}


@pytest.mark.parametrize("row", [WORKER, *DAEMONS], ids=lambda row: row.name)
def test_it_writes_where_the_row_says_and_nowhere_else(image: str, result: Result, row: Privileges) -> None:
    """By its mounts: its own /proc (what acts on the machine is bound read-only, what is covered is /proc/version), an
    empty /dev and /run, its folders. What the kernel's /dev has of folders, and /dev/log, is read-only."""
    if row not in rows_of(image):
        pytest.skip(f"{image} has no such program")
    found = read_words(result, "holds")[str(row.account.gid)]
    assert found and row.view is not None
    own = {"/proc", "/dev", "/run", *(folder.path for folder in row.view.own)}
    covered = {f"/proc/{name}" for name in COVERED_OF_PROC}
    for one in found:
        writes = set(one["writes"].strip(",").split(",")) - covered
        assert own <= writes <= own | set(row.view.scratch), one
        assert one["pages"] == ("0" if row.small_pages else "1")
    assert "yes" in {one["leads"] for one in found}, "a session of its own"


def test_no_process_of_another_row_can_look_into_it(image: str, result: Result) -> None:
    """Its /proc belongs to the row's own user and group, or to root where it cannot be looked into at all."""
    for row in rows_of(image):
        for one in read_words(result, "holds")[str(row.account.gid)]:
            assert one["owner"] in ("0,0", f"{row.account.uid},{row.account.gid}"), one


def test_the_agent_keeps_what_pid_1_has_in_namespaces_of_its_own(told: Mapping[str, list[dict[str, str]]]) -> None:
    (agent,) = told[AGENT.name]
    assert (agent["Uid"], agent["NoNewPrivs"], agent["Seccomp"], agent["core"]) == ("0,0,0,0", "0", "0", "0,unlimited")
    assert agent["CapEff"] == agent["CapPrm"] == agent["CapBnd"]
    assert int(agent["CapEff"], 16) & 1 << CAPABILITIES["CAP_SYS_ADMIN"]
    assert {"mnt", "pid"} <= set(agent["own"].strip(",").split(","))


def test_the_machine_was_a_good_one(result: Result) -> None:
    assert result.ok, (result.problems, result.console.read_text(errors="replace").splitlines()[-20:])
