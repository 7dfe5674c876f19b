# SPDX-License-Identifier: Apache-2.0
"""Network functions as sysfs shows them, for guests made of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from fakes.system import FakeSystem
from nvrc.machine.system import Node

PCI = "/sys/bus/pci/devices"
GID = "fe80:0000:0000:0000:b83f:d203:00a1:c000"
NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"


def put_function(system: FakeSystem, bdf: str, ids: str, pci_class: str, vpd: bytes | None = None) -> None:
    vendor, device = ids.split(":")
    for name, value in (("vendor", vendor), ("device", device), ("class", pci_class)):
        system.put(f"{PCI}/{bdf}/{name}", f"0x{value}\n")
    if vpd is not None:
        system.put(f"{PCI}/{bdf}/vpd", vpd)


def put_nic(system: FakeSystem, bdf: str, number: int, *, ids: str = "15b3:101e", pci_class: str = "020000",
            gids: Sequence[str] = (GID,), netdevs: Sequence[str] = (), vpd: bytes | None = None, link_layer: str = "Ethernet",
            driver: str = "mlx5_core", node: bool = True) -> None:
    """A function with its driver, RDMA device mlx5_<number> and verbs uverbs<number>; a minor of 192 and more."""
    folder = f"{PCI}/{bdf}"
    put_function(system, bdf, ids, pci_class, vpd)
    if driver:
        system.put(f"{folder}/driver/module")
        system.put(f"/sys/bus/pci/drivers/{driver}/{bdf}/vendor")
    for name in netdevs or (f"eth{number}",):
        system.put(f"{folder}/net/{name}/address", "02:00:00:00:00:01\n")
    if driver != "mlx5_core":
        return
    port = f"{folder}/infiniband/mlx5_{number}/ports/1"
    system.put(f"{port}/state", "4: ACTIVE\n")
    system.put(f"{port}/link_layer", f"{link_layer}\n")
    for place, gid in enumerate(gids):
        system.put(f"{port}/gids/{place}", f"{gid}\n")
        if gid != NO_GID:
            system.put(f"{port}/gid_attrs/types/{place}", "RoCE v2\n")
    system.put(f"{folder}/infiniband_verbs/uverbs{number}/dev", f"231:{192 + number}\n")
    if node:
        put_node(system, f"uverbs{number}", 192 + number)


def put_node(system: FakeSystem, name: str, minor: int, mode: int = 0o666) -> None:
    os.makedirs(system.real_path("/dev/infiniband"), exist_ok=True)
    system.nodes[f"/dev/infiniband/{name}"] = Node(stat.S_IFCHR | mode, 231, minor)
