# SPDX-License-Identifier: Apache-2.0
"""The version that a document needs is computed from what it uses."""

from __future__ import annotations

import dataclasses

import pytest

from guest_cdi import spec as cdi
from guest_cdi.spec import (
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    IntelRdt,
    Mount,
    NetDevice,
    Spec,
    minimum_version,
)

NODE = ContainerEdits(device_nodes=(DeviceNode(path="/dev/x"),))


def make(*, edits: ContainerEdits = NODE, common: ContainerEdits = cdi.NO_EDITS, name: str = "gpu0",
         kind: str = "nvidia.com/gpu", annotations: tuple[tuple[str, str], ...] = (),
         device_annotations: tuple[tuple[str, str], ...] = ()) -> Spec:
    device = Device(name=name, container_edits=edits, annotations=device_annotations)
    return Spec(kind=kind, devices=(device,), container_edits=common, annotations=annotations)


VERSIONS = {
    "only what the first version had": (make(common=ContainerEdits(
        env=("A=1",), hooks=(Hook(hook_name="prestart", path="/x"),))), "0.3.0"),
    "a mount with a type": (make(edits=ContainerEdits(mounts=(
        Mount(host_path="/a", container_path="/b", type="bind"),))), "0.4.0"),
    "a device name that starts with a digit": (make(name="0"), "0.5.0"),
    "a node with another path on the host": (make(edits=ContainerEdits(device_nodes=(
        DeviceNode(path="/dev/x", host_path="/other/dev/x"),))), "0.5.0"),
    "a node with another path, common to all": (make(common=ContainerEdits(device_nodes=(
        DeviceNode(path="/dev/x", host_path="/y"),))), "0.5.0"),
    "a dot in the class": (make(kind="nvidia.com/g.pu"), "0.6.0"),
    "a dot in the vendor alone": (make(), "0.3.0"),
    "annotations": (make(annotations=(("a", "b"),)), "0.6.0"),
    "annotations of a device": (make(device_annotations=(("a", "b"),)), "0.6.0"),
    "additional groups": (make(name="0", edits=ContainerEdits(additional_gids=(44,))), "0.7.0"),
    "additional groups in common": (make(common=ContainerEdits(additional_gids=(44,))), "0.7.0"),
    "Intel RDT": (make(common=ContainerEdits(intel_rdt=IntelRdt(clos_id="a"))), "0.7.0"),
    "Intel RDT with schemata": (make(common=ContainerEdits(intel_rdt=IntelRdt(schemata=("a",)))), "1.1.0"),
    "Intel RDT with monitoring": (make(edits=ContainerEdits(intel_rdt=IntelRdt(enable_monitoring=True))), "1.1.0"),
    "network devices": (make(edits=ContainerEdits(net_devices=(
        NetDevice(host_interface_name="a", name="b"),))), "1.1.0"),
}


@pytest.mark.parametrize(("spec", "version"), VERSIONS.values(), ids=VERSIONS.keys())
def test_version_is_the_lowest_that_has_every_field(spec: Spec, version: str) -> None:
    assert minimum_version(spec) == version
    assert spec.version == version


def test_group_needs_are_found_in_every_device() -> None:
    late = Device(name="b", container_edits=ContainerEdits(additional_gids=(1,)))
    spec = Spec(kind="a/b", devices=(Device(name="a", container_edits=NODE), late))
    assert spec.version == "0.7.0"


@pytest.mark.parametrize(("record", "keys"), [
    (cdi.Spec, "kind annotations devices containerEdits"), (Device, "name annotations containerEdits"),
    (ContainerEdits, "env deviceNodes netDevices hooks mounts intelRdt additionalGids"),
    (DeviceNode, "path hostPath type major minor fileMode permissions uid gid"),
    (NetDevice, "hostInterfaceName name"), (Hook, "hookName path args env timeout"),
    (Mount, "hostPath containerPath options type"),
    (IntelRdt, "closID l3CacheSchema memBwSchema schemata enableMonitoring"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_keys_and_their_order_are_those_of_the_reference(record: type, keys: str) -> None:
    assert [key for _, key in cdi.keys_of(record)] == keys.split()
    assert [attribute for attribute, _ in cdi.keys_of(record)] == [field.name for field in dataclasses.fields(record)]


def test_edits_know_that_they_are_empty() -> None:
    assert ContainerEdits().is_empty()
    assert not NODE.is_empty()
