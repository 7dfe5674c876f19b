# SPDX-License-Identifier: Apache-2.0
"""A class's configuration as its runtime merges it: the base file, and every entry of config.d by bytes of its name.

Go (decodeDropIns in katautils/config.go) decodes each entry over what is there: fields of [runtime], [hypervisor.X] and
[agent.X] are set whole. Rust (update_from_dropins in kata-types' drop_in.rs) merges tables down to the last one,
replaces all else, and takes regular files only. Both read every entry, whatever its name ends in, so one stray file
fails every pod.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nvrc.preflight.host import Host

Table = dict[str, object]
OF_TABLES = ("hypervisor", "agent")
# Of keys below [hypervisor.*]: both runtimes decode into fields of these types, and a pod is refused where they cannot.
TYPES: Mapping[str, tuple[type, str]] = {
    "default_memory": (int, "a number"),
    "pcie_root_port": (int, "a number"),
    "cold_plug_vfio": (str, "a text"),
    "kernel_params": (str, "a text"),
    "sev_snp_guest": (bool, "true or false"),
    "confidential_guest": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Merged:
    """`drop_ins`: those that were merged. `problems`: what fails every pod of the class, or ends no better."""

    table: Mapping[str, object]
    drop_ins: tuple[str, ...]
    problems: tuple[str, ...]


def merge(host: Host, path: str, *, is_rust: bool) -> Merged | None:
    """None where there is no base file."""
    base, wrong = host.toml(path)
    if base is None and not wrong:
        return None
    problems = [f"{path} {wrong}"] if wrong else []
    merged, taken = _copy(base or {}), list[str]()
    folder = f"{path.rpartition('/')[0]}/config.d"
    for name in sorted(host.listing(folder), key=os.fsencode):
        entry = f"{folder}/{name}"
        if (is_rust and host.is_link(entry)) or not host.is_file(entry):
            problems.append(f"{entry} is not a regular file")
            continue
        drop_in, wrong = host.toml(entry)
        if drop_in is None:
            problems.append(f"{entry} {wrong}")
            continue
        if not name.endswith(".toml") or name.startswith("."):
            problems.append(f"{entry} is not a drop-in by its name, and counts like one")
        taken.append(entry)
        (_merge_rust if is_rust else _apply_go)(merged, drop_in)
    return Merged(merged, tuple(taken), tuple(problems))


def misfits(hypervisor: Mapping[str, object]) -> Iterator[str]:
    for key, (kind, words) in TYPES.items():
        value = hypervisor.get(key)
        if value is not None and type(value) is not kind:
            yield f"{key} = {value!r}, and the runtime stops at what is not {words}"


def _copy(value: Mapping[str, object]) -> Table:
    return {name: _copy(item) if isinstance(item, dict) else item for name, item in value.items()}


def _merge_rust(base: Table, drop_in: Mapping[str, object]) -> None:
    for name, value in drop_in.items():
        found = base.get(name)
        if isinstance(value, dict) and isinstance(found, dict):
            _merge_rust(found, value)
        else:
            base[name] = _copy(value) if isinstance(value, dict) else value


def _apply_go(base: Table, drop_in: Mapping[str, object]) -> None:
    for section, fields in drop_in.items():
        found = base.get(section)
        if not isinstance(fields, dict) or not isinstance(found, dict):
            base[section] = _copy(fields) if isinstance(fields, dict) else fields
            continue
        for name, value in fields.items():
            inner = found.get(name)
            if section in OF_TABLES and isinstance(value, dict) and isinstance(inner, dict):
                inner.update(value)
            else:
                found[name] = value
