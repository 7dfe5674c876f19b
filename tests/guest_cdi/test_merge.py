# SPDX-License-Identifier: Apache-2.0
"""Joining, deduplicating and sorting edits."""

from __future__ import annotations

from guest_cdi.merge import concatenate, merge_devices, tidy
from guest_cdi.spec import ContainerEdits, Device, DeviceNode, Hook, Mount


def mount(path: str, host: str = "") -> Mount:
    return Mount(host_path=host or path, container_path=path)


def node(path: str) -> DeviceNode:
    return DeviceNode(path=path)


def hook(name: str) -> Hook:
    return Hook(hook_name="createContainer", path="/x", args=("x", name))


def test_order_of_discovery_is_kept_for_hooks_and_environment() -> None:
    edits = tidy(concatenate([ContainerEdits(env=("B=1",), hooks=(hook("b"),)),
                              ContainerEdits(env=("A=1", "B=1"), hooks=(hook("a"), hook("b")))]))
    assert edits.env == ("B=1", "A=1")
    assert edits.hooks == (hook("b"), hook("a"))


def test_mounts_and_nodes_are_sorted_by_depth_then_bytes() -> None:
    edits = tidy(ContainerEdits(
        mounts=tuple(map(mount, ("/usr/lib/b", "/usr/lib/B", "/usr/lib/ä", "/run/x", "/usr/lib/b"))),
        device_nodes=tuple(map(node, ("/dev/nvidia-uvm-tools", "/dev/dri/card0", "/dev/nvidia-uvm", "/dev/nvidia10")))))
    assert [entry.container_path for entry in edits.mounts] == ["/run/x", "/usr/lib/B", "/usr/lib/b", "/usr/lib/ä"]
    assert [entry.path for entry in edits.device_nodes] == ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools",
                                                            "/dev/nvidia10", "/dev/dri/card0"]


def test_equal_means_equal_in_every_field() -> None:
    edits = tidy(ContainerEdits(mounts=(mount("/a"), mount("/a", "/b"), mount("/a"))))
    assert edits.mounts == (mount("/a"), mount("/a", "/b"))


def test_groups_are_sorted_and_unique() -> None:
    assert tidy(ContainerEdits(additional_gids=(44, 27, 44))).additional_gids == (27, 44)


def test_what_all_containers_get_is_not_repeated_for_a_device() -> None:
    common = ContainerEdits(device_nodes=(node("/dev/c"),), env=("A=1",), hooks=(hook("a"),), mounts=(mount("/m"),))
    device = concatenate([common, ContainerEdits(device_nodes=(node("/dev/d"),), additional_gids=(1,))])
    assert tidy(device, common) == ContainerEdits(device_nodes=(node("/dev/d"),), additional_gids=(1,))


def test_edits_of_one_node_are_tidy() -> None:
    """Also where every container gets that node: a device is never emptied."""
    edits, common = ContainerEdits(device_nodes=(node("/dev/nvidia0"),)), ContainerEdits(device_nodes=(node("/dev/nvidia0"),))
    assert tidy(edits) is tidy(edits, common) is edits
    assert tidy(ContainerEdits(device_nodes=edits.device_nodes, additional_gids=(44, 44))).additional_gids == (44,)


def test_a_device_is_never_emptied() -> None:
    common = ContainerEdits(device_nodes=(node("/dev/c"),))
    assert tidy(common, common) == common


def test_the_union_of_devices_has_each_entry_once() -> None:
    first = ContainerEdits(device_nodes=(node("/dev/a"),), hooks=(hook("a"),))
    second = ContainerEdits(device_nodes=(node("/dev/b"), node("/dev/a")), hooks=(hook("b"),))
    devices = [Device(name=name, container_edits=edits) for name, edits in
               (("0", first), ("1", second), ("GPU-0", first), ("GPU-1", second))]
    union = merge_devices(devices, ContainerEdits())
    assert union == ContainerEdits(device_nodes=(node("/dev/a"), node("/dev/b")), hooks=(hook("a"), hook("b")))
