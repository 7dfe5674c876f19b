# SPDX-License-Identifier: Apache-2.0
"""Brings edits together: concatenated in order of discovery, each entry once, nodes and mounts sorted.

Hooks and environment keep their order, which has a meaning: links must exist before the cache is rebuilt.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, TypeVar, replace
from guest_cdi.spec import NO_EDITS, ContainerEdits, Device

T = TypeVar("T")


def concatenate(parts: Iterable[ContainerEdits]) -> ContainerEdits:
    """A list after the other; of the one part that is no list (Intel RDT) a container can have but one."""
    every = tuple(parts)
    lists = {name: tuple([entry for edits in every for entry in getattr(edits, name)]) for name in LISTS}
    return ContainerEdits(**lists, intel_rdt=next((edits.intel_rdt for edits in every if edits.intel_rdt), None))


LISTS = tuple([name for name, hint in ContainerEdits.__annotations__.items() if hint.startswith("tuple[")])


def tidy(edits: ContainerEdits, common: ContainerEdits = NO_EDITS) -> ContainerEdits:
    """Each entry once, without those that `common` brings anyway, sorted. Never emptied: an empty device is invalid."""
    unique = _deduplicate(edits)
    rest = _subtract(unique, common)
    return _sort(unique if _is_bare(rest) else rest)


def merge_devices(devices: Iterable[Device], common: ContainerEdits) -> ContainerEdits:
    """The union of devices, as one more device has it."""
    distinct = {id(device.container_edits): device.container_edits for device in devices}
    return tidy(concatenate(distinct.values()), common)


def _deduplicate(edits: ContainerEdits) -> ContainerEdits:
    return replace(edits, env=tuple(dict.fromkeys(edits.env)), device_nodes=tuple(dict.fromkeys(edits.device_nodes)),
                   hooks=tuple(dict.fromkeys(edits.hooks)), mounts=tuple(dict.fromkeys(edits.mounts)),
                   additional_gids=tuple(sorted(set(edits.additional_gids))))


def _subtract(edits: ContainerEdits, common: ContainerEdits) -> ContainerEdits:
    """Supplementary groups stay with the device whose node needs them."""
    if common is NO_EDITS:
        return edits
    return replace(edits, env=_without(edits.env, common.env), hooks=_without(edits.hooks, common.hooks),
                   device_nodes=_without(edits.device_nodes, common.device_nodes),
                   mounts=_without(edits.mounts, common.mounts))


def _without(entries: tuple[T, ...], others: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(entry for entry in entries if entry not in others)


def _is_bare(edits: ContainerEdits) -> bool:
    return not (edits.env or edits.device_nodes or edits.hooks or edits.mounts)


def _sort(edits: ContainerEdits) -> ContainerEdits:
    return replace(edits, device_nodes=tuple(sorted(edits.device_nodes, key=lambda node: _by_depth(node.path))),
                   mounts=tuple(sorted(edits.mounts, key=lambda mount: _by_depth(mount.container_path))))


def _by_depth(path: str) -> tuple[int, bytes]:
    """Parents before what lies below them; byte order among equals."""
    return path.count("/"), path.encode()
