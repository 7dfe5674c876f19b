# SPDX-License-Identifier: Apache-2.0
"""A class's configuration of Kata as a folder for this machine: the class's own file, unchanged, and drop-ins.

Kata reads NAME/config.d beside a configuration file and lays every file there over it. What a machine needs of its own
goes into one drop-in with the highest number, so what is under test (the class, an image's drop-in) stays as written.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Value = str | int | bool | list[str]
Tables = Mapping[str, Mapping[str, Value]]
DROP_INS, OURS = "config.d", "90-lab.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPrograms:
    """What the class's file is told of this machine."""

    qemu: Path
    virtiofsd: Path
    memory_mib: int = 1024


def write_config(folder: Path, of_class: Path, programs: HostPrograms, tables: Tables) -> Path:
    """The configuration file that the runtime is given. Drop-ins that are there already stay."""
    (folder / DROP_INS).mkdir(parents=True, exist_ok=True)
    file = folder / of_class.name
    shutil.copy(of_class, file)
    merged: dict[str, dict[str, Value]] = {
        "hypervisor.qemu": {
            "path": str(programs.qemu), "virtio_fs_daemon": str(programs.virtiofsd), "firmware": "",
            "valid_hypervisor_paths": [str(programs.qemu)], "valid_virtio_fs_daemon_paths": [str(programs.virtiofsd)],
            "default_memory": programs.memory_mib, "enable_debug": True},
        "agent.kata": {}, "runtime": {"enable_debug": True}}
    for name, rows in tables.items():
        merged.setdefault(name, {}).update(rows)
    (folder / DROP_INS / OURS).write_text(to_toml(merged), encoding="utf-8")
    return file


def to_toml(tables: Tables) -> str:
    return "".join(f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in rows.items())
                   for name, rows in tables.items())


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
