# SPDX-License-Identifier: Apache-2.0
"""Container edits applied to an OCI configuration, as the reference CDI library does it for container engines.

What replaces what, in which order, and what is filled in from the device nodes of the host follows pkg/cdi/
container-edits.go of the Container Device Interface; tests/conformance compares the two. Keys of the configuration
that no edit is about stay as they are. Does not read documents or files other than device nodes.
"""

from __future__ import annotations

import stat
from posixpath import normpath

from guest_cdi.host import FileInfo
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import TYPE_CHECKING, Callable, NamedTuple, TypeAlias, deque
from guest_cdi.spec import ContainerEdits, DeviceNode, Hook, IntelRdt, Mount

if TYPE_CHECKING:
    from guest_cdi.load import Data

Config: TypeAlias = "dict[str, Data]"
Lstat: TypeAlias = Callable[[str], FileInfo]

NODE_TYPES = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}
WITH_CGROUP_RULE = ("b", "c")
NO_PERMISSIONS = "none"


class _Node(NamedTuple):
    """A device node with everything that a runtime needs to make it."""

    type: str
    major: int
    minor: int
    mode: int | None


def apply_edits(edits: ContainerEdits, config: Config, lstat: Lstat) -> Config:
    """The configuration with the edits applied; the one given stays untouched. Every unusable node is in one error."""
    result = {key: _copy(value) for key, value in config.items()}
    nodes = _complete_nodes(edits.device_nodes, lstat)
    _add_env(result, edits.env)
    _add_nodes(result, nodes)
    for device in edits.net_devices:
        _object(_object(result, "linux"), "netDevices")[device.host_interface_name] = {"name": device.name}
    _add_mounts(result, edits.mounts)
    for hook in edits.hooks:
        _list(_object(result, "hooks"), hook.hook_name).append(_hook(hook))
    if edits.intel_rdt is not None:
        _object(result, "linux")["intelRdt"] = _intel_rdt(edits.intel_rdt)
    _add_gids(result, edits.additional_gids)
    return result


def _copy(data: Data) -> Data:
    """The module `copy` loads weak references and more, which the worker of PID 1 would pay at every boot with GPUs."""
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def join_edits(parts: tuple[ContainerEdits, ...]) -> ContainerEdits:
    """Edits one after the other; the last intelRdt counts."""
    return ContainerEdits(
        env=tuple(entry for part in parts for entry in part.env),
        device_nodes=tuple(entry for part in parts for entry in part.device_nodes),
        net_devices=tuple(entry for part in parts for entry in part.net_devices),
        hooks=tuple(entry for part in parts for entry in part.hooks),
        mounts=tuple(entry for part in parts for entry in part.mounts),
        intel_rdt=next((part.intel_rdt for part in reversed(parts) if part.intel_rdt is not None), None),
        additional_gids=tuple(entry for part in parts for entry in part.additional_gids),
    )


def _complete_nodes(nodes: tuple[DeviceNode, ...], lstat: Lstat) -> list[tuple[DeviceNode, _Node]]:
    complete, problems = [], []
    for node in nodes:
        try:
            complete.append((node, _complete(node, lstat)))
        except (OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
            problems.append(f"device node {node.host_path or node.path}: {reason}")
    if problems:
        what = "; ".join(dict.fromkeys(problems))
        raise CdiError("E_CDI_INJECT", what, "create the node, or generate the document again")
    return complete


def _complete(node: DeviceNode, lstat: Lstat) -> _Node:
    """What the document leaves out comes from the node on the host; a fully described one need not exist there."""
    is_described = node.type != "" and (node.major != 0 or node.type == "p")
    try:
        info = lstat(node.host_path or node.path)
        host_type = NODE_TYPES.get(stat.S_IFMT(info.mode), "")
        if not host_type:
            raise ValueError("is not a device node")
    except (OSError, ValueError):
        if not is_described:
            raise
        return _Node(node.type, node.major, node.minor, node.file_mode)
    mode = node.file_mode if node.file_mode is not None else stat.S_IMODE(info.mode)
    if is_described:
        return _Node(node.type, node.major, node.minor, mode)
    if node.type not in {"", host_type}:
        raise ValueError(f'the document says type "{node.type}", the host has "{host_type}"')
    if host_type == "p" or node.major != 0:
        return _Node(host_type, node.major, node.minor, mode)
    return _Node(host_type, info.major, info.minor, mode)


def _add_env(config: Config, env: tuple[str, ...]) -> None:
    if not env:
        return
    present = _list(_object(config, "process"), "env")
    index = {str(entry).partition("=")[0]: position for position, entry in enumerate(present)}
    for entry in env:
        name = entry.partition("=")[0]
        if name in index:
            present[index[name]] = entry
        else:
            index[name] = len(present)
            present.append(entry)


class _Entries:
    """A list of objects by one of their keys. What is replaced goes to its end, at no cost of the others."""

    def __init__(self, entries: list[Data], key: str) -> None:
        self._rows, self._gone = [*entries], set[int]()
        self._at: dict[str, deque[int]] = {}
        for number, entry in enumerate(entries):
            if isinstance(entry, dict) and isinstance(name := entry.get(key), str):
                self._at.setdefault(name, deque()).append(number)

    def replace_first(self, name: str, entry: Config) -> None:
        self._others(name).append(len(self._rows))
        self._rows.append(entry)

    def replace_two(self, name: str, entry: Config) -> None:
        """A second one of the name, which a valid configuration has not, gives up its place."""
        if others := self._others(name):
            self._rows[others[0]] = entry
        else:
            others.append(len(self._rows))
            self._rows.append(entry)

    def _others(self, name: str) -> deque[int]:
        """Where those of the name are, once the first one is taken out."""
        found = self._at.setdefault(name, deque())
        if found:
            self._gone.add(found.popleft())
        return found

    def rest(self) -> list[Data]:
        return [row for number, row in enumerate(self._rows) if number not in self._gone]


def _add_nodes(config: Config, nodes: list[tuple[DeviceNode, _Node]]) -> None:
    if not nodes:
        return
    present = _list(_object(config, "linux"), "devices")
    devices = _Entries(present, "path")
    for node, complete in nodes:
        devices.replace_two(node.path, _device(config, node, complete))
        if complete.type in WITH_CGROUP_RULE:
            _allow(config, complete, node.permissions)
    present[:] = devices.rest()


def _device(config: Config, node: DeviceNode, complete: _Node) -> Config:
    device: Config = {"path": node.path, "type": complete.type, "major": complete.major, "minor": complete.minor}
    owner = {"uid": node.uid, "gid": node.gid}
    if "process" in config:
        user = _object(_object(config, "process"), "user")
        owner = {key: value if value is not None else _integer(user, key) or None for key, value in owner.items()}
    for key, value in {"fileMode": complete.mode, **owner}.items():
        if value is not None:
            device[key] = value
    return device


def _allow(config: Config, node: _Node, permissions: str) -> None:
    rule: Config = {"allow": True, "type": node.type, "major": node.major, "minor": node.minor}
    if permissions != NO_PERMISSIONS:
        rule["access"] = permissions or "rwm"
    _list(_object(_object(config, "linux"), "resources"), "devices").append(rule)


def _add_mounts(config: Config, mounts: tuple[Mount, ...]) -> None:
    if not mounts:
        return
    is_mapped = _has_user_namespace(config)
    present = _list(config, "mounts")
    entries = _Entries(present, "destination")
    for mount in mounts:
        entries.replace_first(mount.container_path, _mount(mount, is_mapped=is_mapped))
    present[:] = sorted(entries.rest(), key=_depth)


def _mount(mount: Mount, *, is_mapped: bool) -> Config:
    options = (*mount.options, *(_idmap_option(mount) if is_mapped else ()))
    result: Config = {"destination": mount.container_path, "source": mount.host_path}
    if mount.type:
        result["type"] = mount.type
    if options:
        result["options"] = list(options)
    return result


def _idmap_option(mount: Mount) -> tuple[str, ...]:
    """A bind mount into a user namespace keeps its owners by an idmapped mount."""
    if "idmap" in mount.options or "ridmap" in mount.options:
        return ()
    binds = [option for option in mount.options if option in {"bind", "rbind"}]
    if binds:
        return ("ridmap" if binds[-1] == "rbind" else "idmap",)
    return ("idmap",) if mount.type == "bind" else ()


def _has_user_namespace(config: Config) -> bool:
    linux = config.get("linux")
    namespaces = linux.get("namespaces") if isinstance(linux, dict) else None
    return any(isinstance(entry, dict) and entry.get("type") == "user" for entry in namespaces or ()) \
        if isinstance(namespaces, list) else False


def _depth(mount: Data) -> int:
    destination = mount.get("destination", "") if isinstance(mount, dict) else ""
    clean = normpath(str(destination))
    return clean.count("/") - clean.startswith("//")    # POSIX keeps two leading slashes, Go does not


def _hook(hook: Hook) -> Config:
    result: Config = {"path": hook.path}
    if hook.args:
        result["args"] = list(hook.args)
    if hook.env:
        result["env"] = list(hook.env)
    if hook.timeout is not None:
        result["timeout"] = hook.timeout
    return result


def _intel_rdt(rdt: IntelRdt) -> Config:
    result: Config = {"closID": rdt.clos_id, "l3CacheSchema": rdt.l3_cache_schema, "memBwSchema": rdt.mem_bw_schema,
                      "schemata": list(rdt.schemata), "enableMonitoring": rdt.enable_monitoring}
    return {key: value for key, value in result.items() if value}


def _add_gids(config: Config, gids: tuple[int, ...]) -> None:
    wanted = dict.fromkeys(gid for gid in gids if gid != 0)  # root's group is no addition
    if wanted:
        present = _list(_object(_object(config, "process"), "user"), "additionalGids")
        there = {gid for gid in present if isinstance(gid, int | float)}
        present += [gid for gid in wanted if gid not in there]


def _object(parent: Config, key: str) -> Config:
    value = parent.get(key)
    if value is None:
        value = parent[key] = {}
    if not isinstance(value, dict):
        raise CdiError("E_CDI_BUNDLE", f'"{key}" of the OCI configuration must be an object')
    return value


def _list(parent: Config, key: str) -> list[Data]:
    value = parent.get(key)
    if value is None:
        value = parent[key] = []
    if not isinstance(value, list):
        raise CdiError("E_CDI_BUNDLE", f'"{key}" of the OCI configuration must be a list')
    return value


def _integer(parent: Config, key: str) -> int:
    value = parent.get(key)
    return value if isinstance(value, int) else 0
