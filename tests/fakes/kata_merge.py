# SPDX-License-Identifier: Apache-2.0
"""How Kata's runtimes put a class's configuration and its config.d together, and what the classes of Kata 4.1 say.

Go (katautils/config.go): every entry in the order of the names is decoded over what is there; a key of [hypervisor.X] or
[agent.X] that the runtime's structure lacks is an error, elsewhere a warning. Rust (kata-types' drop_in.rs): regular files
only; tables are merged, all else is replaced. Written down a second time, apart from the factory's own table of classes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Table = dict[str, object]

NVIDIA = "cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses"
NVIDIA_TEE = f"{NVIDIA} nvrc.smi.srs=1"
LINE = f"root_hash={'ef' * 32},salt={'01' * 32},data_blocks=2,data_block_size=4096,hash_block_size=4096"

PLAIN = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"


class Says(NamedTuple):
    """Kernel parameters, extensions, and how long it waits: for the agent, for a container, and in Rust between tries."""

    params: str
    extensions: tuple[str, ...] = ()
    dial_s: int = 45
    create_s: int = 60
    between_ms: int = 10


GO: Mapping[str, Says] = {
    "qemu": Says(PLAIN), "qemu-snp": Says(PLAIN, dial_s=90), "qemu-tdx": Says(PLAIN, dial_s=60),
    "qemu-nvidia-cpu": Says(NVIDIA), "qemu-nvidia-gpu": Says(NVIDIA, (), 1200, 1200),
    "qemu-nvidia-gpu-snp": Says(NVIDIA_TEE, (), 1200, 1200), "qemu-nvidia-gpu-tdx": Says(NVIDIA_TEE, (), 1200, 1200),
}
RUST: Mapping[str, Says] = {
    "qemu-runtime-rs": Says(PLAIN, (), 3, 30), "qemu-snp-runtime-rs": Says(PLAIN, ("coco",), 45, 60, 100),
    "qemu-tdx-runtime-rs": Says(PLAIN, ("coco",), 45, 60, 100), "qemu-nvidia-cpu-runtime-rs": Says(NVIDIA, (), 3, 30),
    "qemu-nvidia-gpu-runtime-rs": Says(NVIDIA, ("gpu",), 1200, 1200, 1000),
    "qemu-nvidia-gpu-snp-runtime-rs": Says(NVIDIA_TEE, ("gpu", "coco"), 1200, 1200, 1000),
    "qemu-nvidia-gpu-tdx-runtime-rs": Says(NVIDIA_TEE, ("gpu", "coco"), 1200, 1200, 1000),
}
CLASSES = (*(f"kata-{shim}" for shim in (*GO, *RUST)),)

# Keys that the Go runtime's structures have, of those that a class or a drop-in of ours names.
_GO_KEYS = {
    "hypervisor": {"path", "kernel", "image", "initrd", "rootfs_type", "kernel_params", "kernel_verity_params",
                   "enable_annotations", "default_memory", "default_vcpus", "disable_image_nvdimm", "pcie_root_port",
                   "cold_plug_vfio", "enable_debug", "guest_extension_images", "shared_fs"},
    "agent": {"enable_debug", "dial_timeout", "launch_process_timeout", "debug_console_enabled", "kernel_modules"},
}
_RUST_KEYS = {
    "hypervisor": _GO_KEYS["hypervisor"] | {"vm_rootfs_driver", "overhead_memory", "overhead_vcpus"},
    "agent": {"enable_debug", "dial_timeout_ms", "reconnect_timeout_ms", "create_container_timeout",
              "launch_process_timeout", "debug_console_enabled", "kernel_modules"},
}


@dataclass(frozen=True)
class Loaded:
    """What a runtime takes of it: the tables of qemu and kata, and [runtime]."""

    qemu: Table
    agent: Table
    runtime: Table

    @property
    def extensions(self) -> list[dict[str, str]]:
        rows = self.qemu.get("guest_extension_images", [])
        assert isinstance(rows, list)
        return rows


class KataError(Exception):
    """The runtime fails every pod of the class with this."""


def class_config(name: str) -> Table:
    """A class's configuration-*.toml, as far as a drop-in may meet it."""
    shim = name.removeprefix("kata-")
    params, extensions, dial_s, create_s, between_ms = {**GO, **RUST}[shim]
    hypervisor: Table = {"path": "/opt/kata/bin/qemu", "kernel": "/opt/kata/vmlinuz", "image": "/opt/kata/kata.img",
                         "rootfs_type": "erofs", "kernel_params": params, "kernel_verity_params": LINE,
                         "enable_annotations": [], "default_memory": 8192, "enable_debug": False}
    if shim in GO:
        return {"hypervisor": {"qemu": hypervisor}, "agent": {"kata": {"dial_timeout": dial_s, "enable_debug": False}},
                "runtime": {"create_container_timeout": create_s, "enable_debug": False}}
    if extensions:
        hypervisor["guest_extension_images"] = [
            {"name": one, "path": f"/opt/kata/{one}.img", "verity_params": LINE} for one in extensions]
    return {"hypervisor": {"qemu": hypervisor}, "runtime": {"enable_debug": False, "name": "virt_container"},
            "agent": {"kata": {"dial_timeout_ms": between_ms, "reconnect_timeout_ms": dial_s * 1000,
                               "create_container_timeout": create_s, "enable_debug": False}}}


def load(name: str, config_d: Path) -> Loaded:
    """What the runtime of the class would run with."""
    is_go = name.removeprefix("kata-") in GO
    merged = class_config(name)
    for entry in sorted(config_d.iterdir(), key=lambda path: path.name.encode()):
        if not is_go and (entry.is_symlink() or not entry.is_file()):
            raise KataError("drop-in cfg file can only be a regular file or a symlink")
        try:
            drop_in = tomllib.loads(entry.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
            raise KataError(f"error decoding file {entry.name}: {wrong}") from wrong
        (_apply_go if is_go else _merge_rust)(merged, drop_in)
    _check_keys(merged, _GO_KEYS if is_go else _RUST_KEYS)
    return read(merged)


def read(merged: Table) -> Loaded:
    tables = [merged["hypervisor"], merged["agent"], {"runtime": merged["runtime"]}]
    named = [table[name] for table, name in zip(tables, ("qemu", "kata", "runtime"), strict=True)
             if isinstance(table, dict)]
    return Loaded(*named)


def _merge_rust(base: Table, drop_in: Table) -> None:
    for key, value in drop_in.items():
        there = base.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            _merge_rust(there, value)
        else:
            base[key] = value


def _apply_go(base: Table, drop_in: Table) -> None:
    """Down to the fields of [runtime], [hypervisor.X] and [agent.X], which are set whole."""
    for section, value in drop_in.items():
        there, rows = base.setdefault(section, {}), value
        assert isinstance(there, dict)
        assert isinstance(rows, dict)
        for key, field in rows.items():
            if section in _GO_KEYS:
                _check_keys({section: {key: field}}, _GO_KEYS)
                there.setdefault(key, {}).update(field)
            else:
                there[key] = field


def _check_keys(merged: Table, known: Mapping[str, set[str]]) -> None:
    for section, keys in known.items():
        tables = merged.get(section, {})
        assert isinstance(tables, dict)
        for table in tables.values():
            if unknown := sorted(table.keys() - keys):
                raise KataError(f'error applying key: key "{unknown[0]}" not found')
