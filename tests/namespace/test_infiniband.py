# SPDX-License-Identifier: Apache-2.0
"""What the agent finds in /dev/infiniband: kata-agent gives all of it to every container that has a VFIO device."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.nics import PCI, put_nic
from fakes.system import FakeSystem
from namespace.guest import Guest, boot

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and device nodes: needs root"),
]

# Of this machine's memory devices, so that an open shows whether the node is one: null, zero, full, random.
NODES = {"uverbs0": 3, "rdma_cm": 5, "umad0": 7, "issm0": 8, "uverbs1": 9}
NIC = "0000:70:00.0"


@pytest.fixture
def guests() -> Iterator[list[Guest]]:
    started: list[Guest] = []
    yield started
    for guest in started:
        guest.end()


def nodes_of(system: FakeSystem, guests: list[Guest], cmdline: str) -> tuple[Guest, list[str]]:
    system.put("/etc/behaviour", "infiniband power-off")
    system.put("/proc/cmdline", f"nvrc.timeout.host_end=0 nvrc.timeout.farewell=1 {cmdline}\n")
    guests.append(boot(system.root, table="known_nics"))
    guests[-1].read_until("agent: nodes listed")
    guests[-1].finish()
    return guests[-1], sorted(line.removeprefix("agent: node ") for line in guests[-1].found("agent: node "))


@pytest.fixture
def board(guest_root: FakeSystem) -> FakeSystem:
    folder = Path(guest_root.real_path("/dev/infiniband"))
    folder.mkdir()
    for name, minor in NODES.items():
        os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (folder / name).chmod(0o600 if name.startswith(("umad", "issm")) else 0o666)
    return guest_root


@pytest.mark.parametrize("cmdline", ["quiet", "nvrc.agent.pidns=off"])
def test_only_verbs_of_nics_are_in_the_agents_reach(board: FakeSystem, guests: list[Guest], cmdline: str) -> None:
    put_nic(board, NIC, 0, node=False)
    guest, seen = nodes_of(board, guests, cmdline)
    assert seen == ["rdma_cm 1:5 666 open", "uverbs0 1:3 666 open"]
    assert guest.found("nvrc: step nics ok")
    assert sorted(os.listdir(board.real_path("/dev/infiniband"))) == sorted(NODES), "for everybody else all is as it was"


@pytest.mark.parametrize("cmdline", ["quiet", "nvrc.agent.pidns=off"])
def test_nothing_is_where_no_nic_is_known(board: FakeSystem, guests: list[Guest], cmdline: str) -> None:
    assert nodes_of(board, guests, cmdline)[1] == []


def test_two_nics_of_one_name_are_out_of_reach_and_a_third_is_not(board: FakeSystem, guests: list[Guest]) -> None:
    """No kernel names two devices alike, so no machine of the lab has them."""
    for bdf, number in ((NIC, 0), ("0000:70:01.0", 0), ("0000:71:00.0", 1)):
        put_nic(board, bdf, number, node=False)
    guest, seen = nodes_of(board, guests, "quiet")
    assert seen == ["rdma_cm 1:5 666 open", "uverbs1 1:9 666 open"]
    for one, other in ((NIC, "0000:70:01.0"), ("0000:70:01.0", NIC)):
        assert guest.found(f"nvrc: warn E_NIC_NAME NIC {one} and {other} are both called mlx5_0")
    assert guest.found("nvrc: READY")


def test_a_nic_with_a_fault_is_out_of_reach_and_the_agent_serves(board: FakeSystem, guests: list[Guest]) -> None:
    put_nic(board, NIC, 0, node=False)
    board.put(f"{PCI}/{NIC}/vpd", b"")
    guest, seen = nodes_of(board, guests, "quiet")
    assert seen == []
    assert guest.found("nvrc: warn E_NIC_VPD NIC 0000:70:00.0: vpd: reads empty")
    assert guest.found("nvrc: READY")
