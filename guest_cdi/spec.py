# SPDX-License-Identifier: Apache-2.0
"""The CDI document as frozen values, every field of CDI 1.1.0, and the version that a document needs.

Follows specs-go/config.go and specs-go/version.go of the Container Device Interface. Does not read, write or judge
documents: render.py writes them, validate.py judges them. A field is declared here, its rule in schema.py, and nowhere
else: keys, reading and writing follow from the classes. An empty value means "absent", as in the reference types;
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
    annotations: tuple[tuple[str, str], ...] = ()
    container_edits: ContainerEdits


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    kind: str
    annotations: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...]
    container_edits: ContainerEdits = NO_EDITS

    @property
    def version(self) -> str:
        """The lowest version that has every field used: old consumers refuse what they do not know."""
        return minimum_version(self)


# Names that are not the attribute's in camel case.
_ODD_KEYS = {"clos_id": "closID"}


def keys_of(record: type) -> tuple[tuple[str, str], ...]:
    """Attribute and key of every field, in the order of the class, in which the reference writes them."""
    return tuple([(name, _ODD_KEYS.get(name) or _camel(name)) for name in record.__annotations__])


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join([word.capitalize() for word in rest])


PARTS = (Device, ContainerEdits, DeviceNode, NetDevice, Hook, Mount, IntelRdt)
SPEC_KEYS = (("version", "cdiVersion"), *keys_of(Spec))


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
