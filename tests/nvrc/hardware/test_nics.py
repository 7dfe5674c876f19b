# SPDX-License-Identifier: Apache-2.0
"""Network functions: what is read of them, which faults withhold one, what the agent is shown, what is reported."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.nics import GID, NO_GID, PCI, put_function, put_nic, put_node
from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.hardware.nics import Gid, Port, read_nics, read_nodes
from nvrc.hardware.topology import classify, scan
from nvrc.machine.system import Node
from nvrc.params.parse import parse
from nvrc.report.networks import NicRecord, PortRecord, nic_row, record_nics
from nvrc.steps import agent, nics

FIRST, SECOND = "0000:70:00.0", "0000:70:01.0"


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


def looked_at(system: FakeSystem) -> Facts:
    return nics.look(system, Facts(parameters=parse(b""), topology=classify(scan(system))))


def test_a_virtual_function_with_roce(system: FakeSystem) -> None:
    put_nic(system, FIRST, 3, gids=(NO_GID, GID), netdevs=("eth1",))
    (nic,) = looked_at(system).nics or ()
    assert nic.ports == (Port(1, "4: ACTIVE", "Ethernet", (Gid(1, GID, "RoCE v2"),)),)
    assert (nic.kind, nic.driver, nic.rdma, nic.verbs, nic.netdevs) == ("RoCE VF", "mlx5_core", "mlx5_3", "uverbs3", ("eth1",))
    assert nic.is_given


@pytest.mark.parametrize(("ids", "pci_class", "kind"), [
    ("15b3:1021", "020700", "InfiniBand PF"), ("15b3:101e", "020700", "InfiniBand VF"), ("15b3:a2dc", "020000", "RoCE PF"),
    ("15b3:a2d3", "020000", "RoCE VF"), ("15b3:1018", "020000", "RoCE VF"),
])
def test_what_a_function_is_called(system: FakeSystem, ids: str, pci_class: str, kind: str) -> None:
    put_nic(system, FIRST, 0, ids=ids, pci_class=pci_class)
    assert nics.tell(looked_at(system)) == f"{FIRST} {kind} mlx5_0 eth0"


def test_the_subnets_ports_of_a_board_are_no_nics(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0, ids="15b3:1021", pci_class="020700", vpd=b"SW_MNG")
    put_nic(system, SECOND, 1)
    put_node(system, "rdma_cm", 90)
    for name in ("umad0", "issm0", "umad1", "issm1"):
        put_node(system, name, 1)
    facts = looked_at(system)
    assert [nic.bdf for nic in facts.nics or ()] == [SECOND]
    assert [name for name, _ in read_nodes(system, facts.nics or ())] == ["uverbs1", "rdma_cm"]


def lose_driver(system: FakeSystem) -> None:
    shutil.rmtree(system.real_path(f"{PCI}/{FIRST}"))
    put_nic(system, FIRST, 0, driver="")
    shutil.rmtree(system.real_path("/sys/bus/pci/drivers/mlx5_core") + f"/{FIRST}")


FAULTS: dict[str, tuple[Callable[[FakeSystem], None], str, str]] = {
    "no driver": (lose_driver, "E_NIC_DRIVER", f"NIC {FIRST} (15b3:101e class 020000) has no driver"),
    "another driver": (lambda s: (shutil.rmtree(s.real_path(f"/sys/bus/pci/drivers/mlx5_core/{FIRST}")), None)[1], "E_NIC_DRIVER",
                       f"NIC {FIRST} (15b3:101e class 020000) is bound to another driver than mlx5_core"),
    "no gid": (lambda s: s.put(f"{PCI}/{FIRST}/infiniband/mlx5_0/ports/1/gids/0", f"{NO_GID}\n"), "E_NIC_GID",
               f"NIC {FIRST} (mlx5_0) has no GID"),
    "silent vpd": (lambda s: s.put(f"{PCI}/{FIRST}/vpd", b""), "E_NIC_VPD", f"NIC {FIRST}: vpd: reads empty"),
    "no node": (lambda s: (s.nodes.clear(), None)[1], "E_NIC_NODE", f"NIC {FIRST}: /dev/infiniband/uverbs0 is not a device node"),
    "a file for a node": (lambda s: s.nodes.update({"/dev/infiniband/uverbs0": Node(stat.S_IFREG | 0o666, 0, 0)}), "E_NIC_NODE",
                          f"NIC {FIRST}: /dev/infiniband/uverbs0 is not a device node"),
}


@pytest.mark.parametrize(("harm", "code", "what"), FAULTS.values(), ids=FAULTS)
def test_a_fault_withholds_the_nic_and_ends_no_boot(system: FakeSystem, harm: Callable[[FakeSystem], None], code: str,
                                                    what: str) -> None:
    put_nic(system, FIRST, 0)
    harm(system)
    facts = looked_at(system)
    (nic,) = facts.nics or ()
    assert [(one.code, one.what, one.path) for one in facts.warnings] == [(code, what, FIRST)]
    assert not nic.is_given
    assert read_nodes(system, (nic,)) == ()
    assert nics.tell(facts) == f"{FIRST} withheld"


def test_two_nics_of_one_name_are_both_withheld(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0)
    put_nic(system, SECOND, 0)
    put_nic(system, "0000:71:00.0", 1)
    facts = looked_at(system)
    assert [(nic.bdf, nic.is_given) for nic in facts.nics or ()] == [(FIRST, False), (SECOND, False), ("0000:71:00.0", True)]
    assert [(one.code, one.what) for one in facts.warnings] == [
        ("E_NIC_NAME", f"NIC {FIRST} and {SECOND} are both called mlx5_0"),
        ("E_NIC_NAME", f"NIC {SECOND} and {FIRST} are both called mlx5_0")]


def test_a_nic_without_rdma_is_worth_a_remark_only(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0)
    for name in ("infiniband", "infiniband_verbs"):
        shutil.rmtree(system.real_path(f"{PCI}/{FIRST}/{name}"))
    facts = looked_at(system)
    assert [(one.code, one.what) for one in facts.warnings] == [
        ("", f"NIC {FIRST} has no RDMA device; its network device is eth0")]


def test_an_rdma_device_that_comes_a_little_later_is_waited_for(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0)
    shutil.rmtree(system.real_path(f"{PCI}/{FIRST}/infiniband_verbs"))
    system.put("/sys/bus/auxiliary/drivers/mlx5_ib.rdma/uevent")
    system.happenings.append(lambda: put_nic(system, FIRST, 0))
    (nic,) = looked_at(system).nics or ()
    assert nic.is_given


def test_nothing_is_waited_for_without_a_driver_that_would_bring_it(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0)
    shutil.rmtree(system.real_path(f"{PCI}/{FIRST}/infiniband_verbs"))
    before_s = system.now()
    looked_at(system)
    assert system.now() == before_s


def test_the_report_names_ports_and_gids(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0)
    records = record_nics(looked_at(system))
    assert records == (NicRecord(
        bdf=FIRST, kind="RoCE VF", driver="mlx5_core", netdevs=("eth0",), rdma="mlx5_0", verbs="uverbs0",
        ports=(PortRecord(number=1, state="4: ACTIVE", link_layer="Ethernet", gids=(f"0 {GID} RoCE v2",)),)),)
    assert nic_row(records[0]) == (FIRST, "RoCE VF", "mlx5_0", "eth0", "", f"port 1 4: ACTIVE, Ethernet, GID 0 {GID} RoCE v2")


@pytest.mark.parametrize(("count", "words"), [(0, "no GID"), (1, "GID 0 a"), (2, "GID 0 a, 1 a"), (5, "GID 0 a, 1 a and 3 more")])
def test_a_terminal_gets_the_first_gids(count: int, words: str) -> None:
    port = PortRecord(number=1, state="4: ACTIVE", link_layer="Ethernet", gids=tuple(f"{place} a" for place in range(count)))
    assert nic_row(NicRecord(bdf=FIRST, kind="RoCE PF", ports=(port,)))[-1] == f"port 1 4: ACTIVE, Ethernet, {words}"


@pytest.mark.parametrize(("looks", "shown"), [
    pytest.param(lambda s: None, None, id="no-folder"),
    pytest.param(lambda s: put_node(s, "umad0", 0), (), id="no-nic-known"),
])
def test_what_the_agent_is_shown_without_nics(system: FakeSystem, looks: Callable[[FakeSystem], None],
                                              shown: tuple[str, ...] | None) -> None:
    looks(system)
    agent.run(system, Facts(parameters=parse(b"cgroup_no_v1=all")))
    assert system.programs[0].infiniband == shown


def test_the_agent_is_shown_what_containers_may_have(system: FakeSystem) -> None:
    put_nic(system, FIRST, 0)
    put_nic(system, SECOND, 1, gids=(NO_GID,))
    put_node(system, "rdma_cm", 90)
    put_node(system, "umad0", 0, 0o600)
    facts = looked_at(system)
    agent.run(system, Facts(parameters=parse(b"cgroup_no_v1=all"), nics=facts.nics))
    assert system.programs[0].infiniband == (
        ("uverbs0", stat.S_IFCHR | 0o666, 231, 192), ("rdma_cm", stat.S_IFCHR | 0o666, 231, 90))


def test_other_functions_of_the_vendor_are_none(system: FakeSystem) -> None:
    put_function(system, FIRST, "15b3:c2d2", "080100")
    assert read_nics(system, classify(scan(system)).nics) == ()
