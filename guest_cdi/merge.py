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
    if len(edits.device_nodes) == 1 and not (edits.env or edits.hooks or edits.mounts or edits.additional_gids):
        return edits  # as most GPUs of a guest are
    rest = _subtract(edits, common)
    return _subtract(edits, NO_EDITS) if _is_bare(rest) else rest


def merge_devices(devices: Iterable[Device], common: ContainerEdits) -> ContainerEdits:
    """The union of devices, as one more device has it."""
    distinct = {id(device.container_edits): device.container_edits for device in devices}
    return tidy(concatenate(distinct.values()), common)


def _subtract(edits: ContainerEdits, common: ContainerEdits) -> ContainerEdits:
    """Supplementary groups stay with the device whose node needs them."""
    nodes, mounts = _without(edits.device_nodes, common.device_nodes), _without(edits.mounts, common.mounts)
    return replace(edits, env=tuple(_without(edits.env, common.env)), hooks=tuple(_without(edits.hooks, common.hooks)),
                   device_nodes=tuple(sorted(nodes, key=lambda node: _by_depth(node.path))),
                   mounts=tuple(sorted(mounts, key=lambda mount: _by_depth(mount.container_path))),
                   additional_gids=tuple(sorted(set(edits.additional_gids))))


def _without(entries: Iterable[T], others: tuple[T, ...]) -> Iterable[T]:
    rest = [entry for entry in entries if entry not in others]
    return dict.fromkeys(rest) if len(rest) > 1 else rest


def _is_bare(edits: ContainerEdits) -> bool:
    return not (edits.env or edits.device_nodes or edits.hooks or edits.mounts)


def _by_depth(path: str) -> tuple[int, bytes]:
    """Parents before what lies below them; byte order among equals. What is not UTF-8 fails where it is written."""
    return path.count("/"), path.encode(errors="surrogatepass")
