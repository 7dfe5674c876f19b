# SPDX-License-Identifier: Apache-2.0
"""The CDI document as frozen values, every field of CDI 1.1.0, and the version that a document needs.

Follows specs-go/config.go and specs-go/version.go of the Container Device Interface. Does not read, write or judge
documents: render.py writes them, validate.py judges them. An empty value means "absent", as in the reference types;
None is used only where zero and absent differ.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, dataclass

OLDEST_VERSION = "0.3.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetDevice:
    host_interface_name: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelRdt:
    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEdits:
    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    hooks: tuple[Hook, ...] = ()
    mounts: tuple[Mount, ...] = ()
    intel_rdt: IntelRdt | None = None
    additional_gids: tuple[int, ...] = ()

    def is_empty(self) -> bool:
        return self == NO_EDITS


NO_EDITS = ContainerEdits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    name: str
    container_edits: ContainerEdits
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    kind: str
    devices: tuple[Device, ...]
    container_edits: ContainerEdits = NO_EDITS
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """The lowest version that has every field used: old consumers refuse what they do not know."""
        return minimum_version(self)


# Attribute and key of every field, in the order in which the reference writes them.
SPEC_KEYS = (("version", "cdiVersion"), ("kind", "kind"), ("annotations", "annotations"), ("devices", "devices"),
             ("container_edits", "containerEdits"))
DEVICE_KEYS = (("name", "name"), ("annotations", "annotations"), ("container_edits", "containerEdits"))
EDITS_KEYS = (("env", "env"), ("device_nodes", "deviceNodes"), ("net_devices", "netDevices"), ("hooks", "hooks"),
              ("mounts", "mounts"), ("intel_rdt", "intelRdt"), ("additional_gids", "additionalGids"))
DEVICE_NODE_KEYS = (("path", "path"), ("host_path", "hostPath"), ("type", "type"), ("major", "major"),
                    ("minor", "minor"), ("file_mode", "fileMode"), ("permissions", "permissions"), ("uid", "uid"),
                    ("gid", "gid"))
NET_DEVICE_KEYS = (("host_interface_name", "hostInterfaceName"), ("name", "name"))
HOOK_KEYS = (("hook_name", "hookName"), ("path", "path"), ("args", "args"), ("env", "env"), ("timeout", "timeout"))
MOUNT_KEYS = (("host_path", "hostPath"), ("container_path", "containerPath"), ("options", "options"), ("type", "type"))
INTEL_RDT_KEYS = (("clos_id", "closID"), ("l3_cache_schema", "l3CacheSchema"), ("mem_bw_schema", "memBwSchema"),
                  ("schemata", "schemata"), ("enable_monitoring", "enableMonitoring"))


def all_edits(spec: Spec) -> Iterator[ContainerEdits]:
    yield spec.container_edits
    for device in spec.devices:
        yield device.container_edits


def _needs_1_1_0(spec: Spec) -> bool:
    return any(edits.net_devices or (edits.intel_rdt is not None
                                     and (edits.intel_rdt.schemata or edits.intel_rdt.enable_monitoring))
               for edits in all_edits(spec))


def _needs_0_7_0(spec: Spec) -> bool:
    return any(edits.intel_rdt is not None or edits.additional_gids for edits in all_edits(spec))


def _needs_0_6_0(spec: Spec) -> bool:
    if spec.annotations or any(device.annotations for device in spec.devices):
        return True
    return "." in spec.kind.partition("/")[2]


def _needs_0_5_0(spec: Spec) -> bool:
    if any(device.name[:1].isdigit() for device in spec.devices):
        return True
    return any(node.host_path for edits in all_edits(spec) for node in edits.device_nodes)


def _needs_0_4_0(spec: Spec) -> bool:
    return any(mount.type for edits in all_edits(spec) for mount in edits.mounts)


# 0.8.0 and 1.0.0 brought no field, so no document ever needs them.
VERSION_RULES = (("1.1.0", _needs_1_1_0), ("0.7.0", _needs_0_7_0), ("0.6.0", _needs_0_6_0), ("0.5.0", _needs_0_5_0),
                 ("0.4.0", _needs_0_4_0))


def minimum_version(spec: Spec) -> str:
    return next((version for version, needs in VERSION_RULES if needs(spec)), OLDEST_VERSION)
