# SPDX-License-Identifier: Apache-2.0
"""From plain data to a Spec.

Judges nothing: schema.py says what is of the wrong type, and here it becomes the empty value, so that the rules
between values can still be told about the rest of the document.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping, Sequence
from guest_cdi.load import Data
from guest_cdi.spec import ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec


def to_spec(data: Data) -> Spec:
    document = as_mapping(data)
    return Spec(
        kind=_text(document, "kind"),
        annotations=_annotations(document),
        devices=tuple(map(_device, map(as_mapping, as_sequence(document.get("devices"))))),
        container_edits=_edits(as_mapping(document.get("containerEdits"))),
    )


def _device(data: Mapping[str, Data]) -> Device:
    return Device(name=_text(data, "name"), annotations=_annotations(data),
                  container_edits=_edits(as_mapping(data.get("containerEdits"))))


def _edits(data: Mapping[str, Data]) -> ContainerEdits:
    rdt = data.get("intelRdt")
    return ContainerEdits(
        env=_texts(data, "env"),
        device_nodes=tuple(map(_device_node, _records(data, "deviceNodes"))),
        net_devices=tuple(NetDevice(host_interface_name=_text(entry, "hostInterfaceName"), name=_text(entry, "name"))
                          for entry in _records(data, "netDevices")),
        hooks=tuple(map(_hook, _records(data, "hooks"))),
        mounts=tuple(map(_mount, _records(data, "mounts"))),
        intel_rdt=_intel_rdt(rdt) if isinstance(rdt, dict) else None,
        additional_gids=tuple(entry for entry in as_sequence(data.get("additionalGids")) if isinstance(entry, int)),
    )


def _device_node(data: Mapping[str, Data]) -> DeviceNode:
    return DeviceNode(
        path=_text(data, "path"), host_path=_text(data, "hostPath"), type=_text(data, "type"),
        major=_integer(data, "major") or 0, minor=_integer(data, "minor") or 0, file_mode=_integer(data, "fileMode"),
        permissions=_text(data, "permissions"), uid=_integer(data, "uid"), gid=_integer(data, "gid"),
    )


def _hook(data: Mapping[str, Data]) -> Hook:
    return Hook(hook_name=_text(data, "hookName"), path=_text(data, "path"), args=_texts(data, "args"),
                env=_texts(data, "env"), timeout=_integer(data, "timeout"))


def _mount(data: Mapping[str, Data]) -> Mount:
    return Mount(host_path=_text(data, "hostPath"), container_path=_text(data, "containerPath"),
                 options=_texts(data, "options"), type=_text(data, "type"))


def _intel_rdt(data: Mapping[str, Data]) -> IntelRdt:
    return IntelRdt(clos_id=_text(data, "closID"), l3_cache_schema=_text(data, "l3CacheSchema"),
                    mem_bw_schema=_text(data, "memBwSchema"), schemata=_texts(data, "schemata"),
                    enable_monitoring=data.get("enableMonitoring") is True)


def as_mapping(data: Data) -> Mapping[str, Data]:
    return data if isinstance(data, dict) else {}


def as_sequence(data: Data) -> Sequence[Data]:
    return data if isinstance(data, list) else ()


def _records(data: Mapping[str, Data], key: str) -> Iterator[Mapping[str, Data]]:
    return map(as_mapping, as_sequence(data.get(key)))


def _text(data: Mapping[str, Data], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _texts(data: Mapping[str, Data], key: str) -> tuple[str, ...]:
    return tuple(entry for entry in as_sequence(data.get(key)) if isinstance(entry, str))


def _integer(data: Mapping[str, Data], key: str) -> int | None:
    value = data.get(key)
    return value if isinstance(value, int) else None


def _annotations(data: Mapping[str, Data]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in as_mapping(data.get("annotations")).items() if isinstance(value, str))
